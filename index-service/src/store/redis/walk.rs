//! What looks at all keys: counting, the registry, a purge, an export.
//!
//! SCAN goes through one node after the other. It yields every key that is there from its
//! beginning to its end; while a cluster moves slots between nodes, a key may be missed.

use std::collections::{BTreeMap, HashMap, HashSet};

use prompt_cache_core::ledger::NewEntry;
use redis::{FromRedisValue, RedisResult, Value, cmd};

use super::keys::Keys;
use super::link::{Link, Operation};
use super::value::decode;
use crate::store::embedded::record::{decode_info, encode_info};
use crate::store::{Cursor, Epoch, Page, Scope, ScopeInfo, Write};

/// Keys up to which entries are counted; beyond, every key of the database counts as one.
const COUNTED_KEYS_MAX: u64 = 100_000;
/// Keys one SCAN looks at.
const SCAN_KEYS: usize = 5000;

/// A place in a walk: a node, by a slot of it, and SCAN's cursor there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    slot: u16,
    cursor: u64,
}

impl Place {
    /// The beginning for an empty cursor; `None` for a cursor of another store.
    pub fn of(cursor: &Cursor) -> Option<Self> {
        let bytes = cursor.as_bytes();
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (slot, cursor) = bytes.split_first_chunk::<2>()?;
        Some(Self {
            slot: u16::from_be_bytes(*slot),
            cursor: u64::from_be_bytes(cursor.try_into().ok()?),
        })
    }

    fn to_cursor(self) -> Cursor {
        Cursor::new([&self.slot.to_be_bytes()[..], &self.cursor.to_be_bytes()].concat())
    }
}

/// One step through the keys of a pattern.
struct Step {
    keys: Vec<Vec<u8>>,
    next: Option<Place>,
}

async fn step(link: &mut Link, pattern: &str, from: Place, count: usize) -> RedisResult<Step> {
    let mut scan = cmd("SCAN");
    scan.arg(from.cursor);
    scan.arg("MATCH").arg(pattern).arg("COUNT").arg(count);
    let found = link.ask_node(from.slot, scan).await?;
    let (cursor, keys): (u64, Vec<Vec<u8>>) = FromRedisValue::from_redis_value(found)?;
    let next = if cursor == 0 {
        let nodes = nodes(link).await?;
        nodes
            .into_iter()
            .find(|slot| *slot > from.slot)
            .map(|slot| Place { slot, cursor: 0 })
    } else {
        Some(Place {
            slot: from.slot,
            cursor,
        })
    };
    Ok(Step { keys, next })
}

/// The lowest slot of each primary, ascending. A single server is node 0.
async fn nodes(link: &mut Link) -> RedisResult<Vec<u16>> {
    if matches!(link, Link::Single(_)) {
        return Ok(vec![0]);
    }
    let ranges: Value = cmd("CLUSTER").arg("SLOTS").query_async(link).await?;
    let mut lowest: BTreeMap<(String, u16), u16> = BTreeMap::new();
    for range in Vec::<Vec<Value>>::from_redis_value(ranges)? {
        let mut parts = range.into_iter();
        let (Some(first), Some(primary)) = (parts.next(), parts.nth(1)) else {
            continue;
        };
        let first = u16::from_redis_value(first)?;
        let mut primary = Vec::<Value>::from_redis_value(primary)?.into_iter();
        let (Some(host), Some(port)) = (primary.next(), primary.next()) else {
            continue;
        };
        let node = (
            String::from_redis_value(host)?,
            u16::from_redis_value(port)?,
        );
        let slot = lowest.entry(node).or_insert(first);
        *slot = first.min(*slot);
    }
    let mut slots: Vec<u16> = lowest.into_values().collect();
    slots.sort_unstable();
    Ok(slots)
}

/// `Store::stats`' number of entries.
pub struct Count<'a> {
    pub keys: &'a Keys,
}

impl Operation for Count<'_> {
    type Answer = u64;

    async fn run(&self, mut link: Link) -> RedisResult<u64> {
        let all: u64 = cmd("DBSIZE").query_async(&mut link).await?;
        if all > COUNTED_KEYS_MAX {
            return Ok(all);
        }
        let pattern = self.keys.pattern(None);
        let mut found = HashSet::new();
        let mut place = Some(Place::default());
        while let Some(from) = place {
            let step = step(&mut link, &pattern, from, SCAN_KEYS).await?;
            // SCAN may yield a key twice.
            found.extend(step.keys);
            place = step.next;
        }
        Ok(found.len() as u64)
    }
}

/// One step of `Store::scan`.
pub struct Scan<'a> {
    pub keys: &'a Keys,
    pub from: Place,
    pub limit: usize,
}

impl Operation for Scan<'_> {
    type Answer = Page<Write>;

    async fn run(&self, mut link: Link) -> RedisResult<Self::Answer> {
        let pattern = self.keys.pattern(None);
        let step = step(&mut link, &pattern, self.from, self.limit.max(1)).await?;
        let mut items = Vec::with_capacity(step.keys.len());
        if !step.keys.is_empty() {
            let mut get = cmd("MGET");
            get.arg(&step.keys);
            let values: Vec<Option<Vec<u8>>> = get.query_async(&mut link).await?;
            for (key, value) in step.keys.iter().zip(values) {
                let entry = value.and_then(|value| decode(&value));
                if let (Some((scope, hash)), Some(entry)) = (self.keys.parse(key), entry) {
                    items.push(Write {
                        scope,
                        entry: NewEntry {
                            hash,
                            tokens: entry.tokens,
                            tier: entry.tier,
                        },
                        expires_at_ms: entry.expires_at_ms,
                    });
                }
            }
        }
        Ok(Page {
            items,
            next: step.next.map(Place::to_cursor),
        })
    }
}

/// One step of `Store::purge`: how many entries went, and where to go on.
pub struct Remove<'a> {
    pub keys: &'a Keys,
    pub scopes: &'a HashSet<Scope>,
    pub from: Place,
}

impl Operation for Remove<'_> {
    type Answer = (u64, Option<Place>);

    async fn run(&self, mut link: Link) -> RedisResult<Self::Answer> {
        let only = self.scopes.iter().next().filter(|_| self.scopes.len() == 1);
        let pattern = self.keys.pattern(only);
        let step = step(&mut link, &pattern, self.from, SCAN_KEYS).await?;
        let mut gone: HashMap<Scope, Vec<Vec<u8>>> = HashMap::new();
        for key in step.keys {
            if let Some((scope, _)) = self.keys.parse(&key)
                && self.scopes.contains(&scope)
            {
                gone.entry(scope).or_default().push(key);
            }
        }
        let mut removed = 0;
        for keys in gone.into_values() {
            let count: u64 = cmd("UNLINK").arg(keys).query_async(&mut link).await?;
            removed += count;
        }
        Ok((removed, step.next))
    }
}

/// `Store::register`.
pub struct Register<'a> {
    pub keys: &'a Keys,
    pub infos: &'a [ScopeInfo],
}

impl Operation for Register<'_> {
    type Answer = ();

    async fn run(&self, mut link: Link) -> RedisResult<()> {
        let mut set = cmd("HSET");
        set.arg(self.keys.scopes());
        let mut any = false;
        for info in self.infos {
            if let Some(stored) = encode_info(info) {
                set.arg(&info.scope().as_bytes()[..]).arg(stored);
                any = true;
            }
        }
        if any {
            set.query_async::<u64>(&mut link).await?;
        }
        Ok(())
    }
}

/// A field of a hash and its value.
type Field = (Vec<u8>, Vec<u8>);

/// One step of `Store::scopes`.
pub struct Scopes<'a> {
    pub keys: &'a Keys,
    pub from: Place,
    pub limit: usize,
}

impl Operation for Scopes<'_> {
    type Answer = Page<ScopeInfo>;

    async fn run(&self, mut link: Link) -> RedisResult<Self::Answer> {
        let mut scan = cmd("HSCAN");
        scan.arg(self.keys.scopes()).arg(self.from.cursor);
        scan.arg("COUNT").arg(self.limit.max(1));
        let (cursor, fields): (u64, Vec<Field>) = scan.query_async(&mut link).await?;
        let next = Place { slot: 0, cursor };
        Ok(Page {
            items: fields
                .iter()
                .filter_map(|(_, info)| decode_info(info))
                .collect(),
            next: (cursor != 0).then(|| next.to_cursor()),
        })
    }
}

/// `Store::epoch`; a store without one gets `fresh`. `None` for what no version has written.
pub struct ReadEpoch<'a> {
    pub keys: &'a Keys,
    pub fresh: Epoch,
}

impl Operation for ReadEpoch<'_> {
    type Answer = Option<Epoch>;

    async fn run(&self, mut link: Link) -> RedisResult<Self::Answer> {
        let key = self.keys.epoch();
        let get = cmd("GET").arg(&key).clone();
        let mut stored: Option<Vec<u8>> = get.query_async(&mut link).await?;
        if stored.is_none() {
            let fresh = &self.fresh.as_bytes()[..];
            cmd("SETNX")
                .arg(&key)
                .arg(fresh)
                .query_async::<()>(&mut link)
                .await?;
            stored = get.query_async(&mut link).await?;
        }
        let epoch = stored.and_then(|stored| stored.try_into().ok());
        Ok(epoch.map(Epoch::from_bytes))
    }
}

/// The end of `Store::purge`.
pub struct ReplaceEpoch<'a> {
    pub keys: &'a Keys,
    pub next: Epoch,
}

impl Operation for ReplaceEpoch<'_> {
    type Answer = ();

    async fn run(&self, mut link: Link) -> RedisResult<()> {
        cmd("SET")
            .arg(self.keys.epoch())
            .arg(&self.next.as_bytes()[..])
            .query_async(&mut link)
            .await
    }
}
