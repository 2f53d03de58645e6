//! Redis Cluster: slots that move, and a primary that fails over during load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prompt_cache_index::store::Store;
use prompt_cache_test_servers::redis::{Cluster, PASSWORD};

use crate::samples::{NOW, hash, open, scope, write};

/// Tenants whose scopes spread over all primaries.
const TENANTS: u8 = 24;

fn store(urls: &str) -> Arc<dyn Store> {
    open(&format!(
        "{{redis: {{url: '{urls}', cluster: true, key_prefix: p, operation_timeout_ms: 2000}}}}"
    ))
}

/// What the writers of a load have seen.
#[derive(Default)]
struct Seen {
    /// Acknowledged entries.
    acknowledged: Vec<(u8, u32)>,
    errors: usize,
    slowest: Duration,
}

/// Writes entries of all tenants until it is stopped, going on after errors.
async fn load(ledger: Arc<dyn Store>, first: u32, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut n = first;
    while !stop.load(Ordering::SeqCst) {
        let tenant = (n % u32::from(TENANTS)) as u8;
        let start = Instant::now();
        match ledger.write(vec![write(tenant, n, 300_000)], NOW).await {
            Ok(()) => seen.acknowledged.push((tenant, n)),
            Err(_) => seen.errors += 1,
        }
        seen.slowest = seen.slowest.max(start.elapsed());
        n += 1;
    }
    seen
}

/// Waits until writes of every tenant succeed.
async fn await_writes(ledger: &Arc<dyn Store>, first: u32) {
    let end = Instant::now() + Duration::from_secs(60);
    for tenant in 0..TENANTS {
        let entry = write(tenant, first + u32::from(tenant), 300_000);
        while let Err(error) = ledger.write(vec![entry], NOW).await {
            assert!(Instant::now() < end, "{error}");
        }
    }
}

/// What is stored for each entry; waits for a cluster that is still finding itself.
async fn found(ledger: &Arc<dyn Store>, (tenant, n): (u8, u32)) -> Option<u32> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match ledger.look_up(&scope(tenant), &[hash(n)], NOW).await {
            Ok(found) => return found[0].map(|entry| entry.tokens),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis Cluster: ./just test-stores"]
async fn a_primary_fails_over_during_load() {
    let mut cluster = Cluster::start(1);
    let ledger = store(&cluster.urls());
    await_writes(&ledger, 0).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=4u32)
        .map(|writer| {
            let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
            tokio::spawn(load(ledger, writer * 1_000_000, stop))
        })
        .collect();

    // Asked to, a replica takes over with everything: nothing acknowledged is lost.
    await_writes(&ledger, 1000).await;
    cluster.nodes()[3].command(&["CLUSTER", "FAILOVER"]);
    await_role(&mut cluster, 3, "role:master");
    await_writes(&ledger, 2000).await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        let seen = writer.await.unwrap();
        assert!(seen.slowest < Duration::from_secs(10), "{:?}", seen.slowest);
        acknowledged.extend(seen.acknowledged);
    }
    assert!(acknowledged.len() > 100);
    for entry in &acknowledged {
        assert_eq!(found(&ledger, *entry).await, Some(entry.1 + 1), "{entry:?}");
    }

    // Killed, it is replaced within seconds. What it had acknowledged and not yet copied may be
    // gone; nothing ever reads wrong, and calls end in time.
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (11..=14u32)
        .map(|writer| {
            let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(&stop));
            tokio::spawn(load(ledger, writer * 1_000_000, stop))
        })
        .collect();
    await_writes(&ledger, 3000).await;
    cluster.nodes()[1].kill();
    await_role(&mut cluster, 4, "role:master");
    await_writes(&ledger, 4000).await;
    stop.store(true, Ordering::SeqCst);
    let (mut kept, mut lost, mut errors) = (0, 0, 0);
    for writer in writers {
        let seen = writer.await.unwrap();
        assert!(seen.slowest < Duration::from_secs(10), "{:?}", seen.slowest);
        errors += seen.errors;
        for entry in seen.acknowledged {
            match found(&ledger, entry).await {
                Some(tokens) => {
                    assert_eq!(tokens, entry.1 + 1);
                    kept += 1;
                }
                None => lost += 1,
            }
        }
    }
    println!("killed primary: {kept} kept, {lost} lost, {errors} errors");
    assert!(kept > 100);
    assert!(lost <= kept / 20, "{lost} of {kept}");
    ledger.ping().await.unwrap();
}

fn await_role(cluster: &mut Cluster, node: usize, role: &str) {
    let node = &cluster.nodes()[node];
    prompt_cache_test_servers::until("fail-over", || {
        let info = node.command(&["INFO", "replication"]);
        info.lines()
            .any(|line| line == role)
            .then_some(())
            .ok_or(info)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis Cluster: ./just test-stores"]
async fn a_slot_that_moves_is_followed() {
    let mut cluster = Cluster::start(0);
    let ledger = store(&cluster.urls());
    await_writes(&ledger, 0).await;
    let nodes = cluster.nodes();
    let (source, target) = (
        nodes[0].command(&["CLUSTER", "MYID"]),
        nodes[1].command(&["CLUSTER", "MYID"]),
    );
    let client = redis::Client::open(nodes[0].url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let mut moved = 0;
    for tenant in 0..TENANTS {
        let n = u32::from(tenant);
        let tag = u128::from_be_bytes(*scope(tenant).as_bytes());
        let slot = nodes[0].command(&["CLUSTER", "KEYSLOT", &format!("p:{{{tag:032x}}}:")]);
        let keys: Vec<Vec<u8>> = redis::cmd("CLUSTER")
            .arg(&["GETKEYSINSLOT", &slot, "1000"])
            .query_async(&mut link)
            .await
            .unwrap();
        if keys.is_empty() {
            continue;
        }
        let set_slot = |node: usize, how: &str, id: &str| {
            nodes[node].command(&["CLUSTER", "SETSLOT", &slot, how, id]);
        };
        set_slot(1, "IMPORTING", &source);
        set_slot(0, "MIGRATING", &target);
        redis::cmd("MIGRATE")
            .arg(&["127.0.0.1", &nodes[1].port().to_string(), "", "0", "5000"])
            .arg(&["AUTH", PASSWORD, "KEYS"])
            .arg(keys)
            .query_async::<()>(&mut link)
            .await
            .unwrap();
        // The slot is still the old node's, which sends those who ask on to the new one.
        assert_eq!(found(&ledger, (tenant, n)).await, Some(n + 1), "open slot");
        for node in [1, 0, 2] {
            set_slot(node, "NODE", &target);
        }
        assert_eq!(found(&ledger, (tenant, n)).await, Some(n + 1), "moved slot");
        moved += 1;
    }
    assert!(moved > 2, "{moved} scopes were on the first node");
    await_writes(&ledger, 5000).await;
}
