//! What requests ask of Redis: each one command per scope, all of them in flight at once.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;
use redis::{RedisResult, Script, SetExpiry, SetOptions, ToRedisArgs, cmd};

use super::keys::Keys;
use super::link::{Link, Operation};
use super::value::{decode, encode};
use crate::store::tier::TIER_CODE_MAX;
use crate::store::{Refresh, Scope, Write, is_live, merge};

/// What an entry outlives its expiry by in Redis. Native expiry only frees memory: whether an
/// entry is live is for the service's clock, and a refresh may arrive a little late.
pub const GRACE_MS: u64 = 60_000;
/// Version of the keys and values here. A release that changes what older ones read raises it.
pub const FORMAT: u64 = 1;
/// Life of what a ping writes.
const PING_MS: u64 = 60_000;

/// `Store::look_up`.
pub struct LookUp<'a> {
    pub keys: &'a Keys,
    pub scope: &'a Scope,
    pub hashes: &'a [PrefixHash],
    pub now_ms: u64,
}

impl Operation for LookUp<'_> {
    type Answer = Vec<Option<LiveEntry>>;

    async fn run(&self, mut link: Link) -> RedisResult<Self::Answer> {
        if self.hashes.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        for hash in self.hashes {
            get.arg(self.keys.entry(self.scope, hash));
        }
        let values: Vec<Option<Vec<u8>>> = get.query_async(&mut link).await?;
        let entries = values.into_iter().map(|value| {
            value
                .and_then(|value| decode(&value))
                .filter(|entry| is_live(entry, self.now_ms))
        });
        Ok(entries.collect())
    }
}

/// A script with the keys and arguments of each scope: atomic for each of them.
pub struct ScopeScripts<'a> {
    script: &'a Script,
    first: Vec<u64>,
    calls: Vec<Call>,
}

/// One scope's.
#[derive(Default)]
struct Call {
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl<'a> ScopeScripts<'a> {
    /// `Store::write`, in order for each key.
    pub fn write(script: &'a Script, keys: &Keys, writes: &[Write], now_ms: u64) -> Self {
        let mut calls = HashMap::new();
        for write in writes {
            let value = encode(&merge(None, write, now_ms));
            add(&mut calls, keys, &write.scope, &write.entry.hash, value);
        }
        Self {
            script,
            first: vec![TIER_CODE_MAX.into(), now_ms, GRACE_MS],
            calls: calls.into_values().collect(),
        }
    }

    /// `Store::refresh`.
    pub fn refresh(script: &'a Script, keys: &Keys, refreshes: &[Refresh]) -> Self {
        let mut calls = HashMap::new();
        for refresh in refreshes {
            let value = refresh.expires_at_ms.to_string().into_bytes();
            add(&mut calls, keys, &refresh.scope, &refresh.hash, value);
        }
        Self {
            script,
            first: vec![TIER_CODE_MAX.into()],
            calls: calls.into_values().collect(),
        }
    }
}

fn add(
    calls: &mut HashMap<Scope, Call>,
    keys: &Keys,
    scope: &Scope,
    hash: &PrefixHash,
    argument: Vec<u8>,
) {
    let call = calls.entry(*scope).or_default();
    call.keys.push(keys.entry(scope, hash));
    call.arguments.push(argument);
}

impl Operation for ScopeScripts<'_> {
    type Answer = ();

    async fn run(&self, link: Link) -> RedisResult<()> {
        let calls = self.calls.iter().map(|Call { keys, arguments }| {
            let mut link = link.clone();
            async move {
                let mut call = self.script.prepare_invoke();
                call.key(keys).arg(&self.first).arg(arguments);
                // Known by its digest; sent in full to a server that has not seen it yet.
                call.invoke_async::<()>(&mut link).await
            }
        });
        try_join_all(calls).await.map(drop)
    }
}

/// The oldest format whose programs can work with the ledger.
pub struct ReadFormat<'a> {
    pub keys: &'a Keys,
}

impl Operation for ReadFormat<'_> {
    type Answer = u64;

    async fn run(&self, mut link: Link) -> RedisResult<u64> {
        let key = self.keys.format();
        let format: Option<u64> = cmd("GET").arg(&key).query_async(&mut link).await?;
        if let Some(format) = format {
            return Ok(format);
        }
        // New, or of a release that did not say it. A server that is full can still be read.
        let mut set = cmd("SET");
        set.arg(&key).arg(FORMAT).arg("NX");
        let _ = set.query_async::<()>(&mut link).await;
        Ok(FORMAT)
    }
}

/// `Store::ping`: writes, because a server that is full, read-only or cannot persist still reads.
pub struct Ping<'a> {
    pub keys: &'a Keys,
}

impl Operation for Ping<'_> {
    type Answer = ();

    async fn run(&self, mut link: Link) -> RedisResult<()> {
        let options = SetOptions::default().with_expiration(SetExpiry::PX(PING_MS));
        let mut set = cmd("SET");
        set.arg(self.keys.ping()).arg(1);
        options.write_redis_args(&mut set);
        set.query_async(&mut link).await
    }
}
