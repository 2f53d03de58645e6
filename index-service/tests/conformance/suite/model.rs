//! The rules again, beside the real store.

use super::*;

/// What the model-based case does to a store.
#[derive(Clone, Debug)]
enum Step {
    Write {
        tenant: u8,
        n: u32,
        tier: Tier,
        age_ms: u64,
    },
    Refresh {
        tenant: u8,
        n: u32,
    },
    Wait {
        ms: u64,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let tier = prop::sample::select(Tier::ALL.to_vec());
    prop_oneof![
        4 => (0..2u8, 0..4u32, tier, 0..200_000u64)
            .prop_map(|(tenant, n, tier, age_ms)| Step::Write { tenant, n, tier, age_ms }),
        3 => (0..2u8, 0..4u32).prop_map(|(tenant, n)| Step::Refresh { tenant, n }),
        3 => prop_oneof![1..2000u64, 60_000..400_000u64, 3_000_000..4_000_000u64]
            .prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Sweep),
    ]
}

/// The rules again, in the plainest form, beside the real store.
pub async fn a_model_of_the_rules_agrees(store: AnyStore) {
    let steps = {
        let mut runner = TestRunner::deterministic();
        prop::collection::vec(step(), 400)
            .new_tree(&mut runner)
            .unwrap()
            .current()
    };
    let mut model: HashMap<(u8, u32), LiveEntry> = HashMap::new();
    let mut now = NOW;
    for (i, step) in steps.into_iter().enumerate() {
        match step {
            Step::Wait { ms } => now += ms,
            Step::Sweep => while store.sweep(now, 3).await.unwrap().more {},
            Step::Write {
                tenant,
                n,
                tier,
                age_ms,
            } => {
                let expires_at_ms = now - age_ms + tier.duration_ms();
                store
                    .write(vec![write(tenant, n, n, tier, expires_at_ms)], now)
                    .await
                    .unwrap();
                let new = LiveEntry {
                    tokens: n,
                    tier,
                    expires_at_ms,
                };
                model
                    .entry((tenant, n))
                    .and_modify(|entry| {
                        if entry.expires_at_ms <= now {
                            *entry = new;
                        } else {
                            entry.tier = entry.tier.max(tier);
                            entry.expires_at_ms = entry.expires_at_ms.max(expires_at_ms);
                        }
                    })
                    .or_insert(new);
            }
            Step::Refresh { tenant, n } => {
                let entry = model
                    .get_mut(&(tenant, n))
                    .filter(|entry| entry.expires_at_ms > now);
                if let Some(entry) = entry {
                    entry.expires_at_ms = entry.expires_at_ms.max(now + entry.tier.duration_ms());
                    let expires_at_ms = entry.expires_at_ms;
                    let refresh = Refresh {
                        scope: scope(tenant),
                        hash: hash(n),
                        expires_at_ms,
                    };
                    store.refresh(vec![refresh]).await.unwrap();
                }
            }
        }
        for tenant in 0..2 {
            for n in 0..4 {
                let expected = model
                    .get(&(tenant, n))
                    .copied()
                    .filter(|entry| entry.expires_at_ms > now);
                assert_eq!(
                    get(&store, tenant, n, now).await,
                    expected,
                    "after step {i}"
                );
            }
        }
    }
}
