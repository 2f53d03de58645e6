//! `envoy/ring-hash.yaml` with four engines behind it.

use std::sync::Arc;

use prompt_cache_e2e::{
    client::Response,
    deadline::{PATIENCE, poll},
    engine::{Engine, Served, Tokens},
    http::Request,
    layout::Layout,
    world::{Options, World},
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// The header that the shipped configuration hashes.
pub const HEADER: &str = "x-prompt-cache-prefix";

/// Labels of the engines' stats.
pub const UPSTREAM: [(&str, &str); 1] = [("envoy_cluster_name", "upstream")];

/// Ports of the engines, in the configuration.
const PORTS: [&str; 4] = [
    "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value",
    "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/1/endpoint/address/socket_address/port_value",
    "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/2/endpoint/address/socket_address/port_value",
    "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/3/endpoint/address/socket_address/port_value",
];

/// Who gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// As shipped: the ring, by prefix.
    Ring,
    /// By prefix as well, with the other consistent hash that Envoy has.
    Maglev,
    /// One engine after the other, as load balancers do by default.
    RoundRobin,
}

/// What a test wants to be different.
pub struct Setup {
    pub balancing: Balancing,
    /// Blocks that each engine has room for.
    pub blocks_max: usize,
    pub concurrency: Option<u32>,
    /// Requests that must be under way for one to be answered.
    pub at_once: usize,
    /// Members of the plugin's configuration.
    pub plugin: Value,
    /// Members of Envoy's configuration.
    pub members: Vec<(&'static str, Value)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            balancing: Balancing::Ring,
            blocks_max: 100_000,
            concurrency: None,
            at_once: 1,
            plugin: json!({}),
            members: vec![],
        }
    }
}

/// Envoy, the index service and the engines; the world's own upstream sees nothing.
pub struct Fleet {
    pub world: World,
    pub engines: Vec<Engine>,
}

impl Fleet {
    pub async fn start(setup: Setup) -> Self {
        let shipped = Layout::of_tests().envoy_configs().join("ring-hash.yaml");
        let mut base: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(shipped).unwrap()).unwrap();
        // Workers learn of an engine's health when the gauges do, not within a second.
        let cluster = &mut base["static_resources"]["clusters"][0];
        cluster["common_lb_config"] = json!({"update_merge_window": "0s"});
        let other = match setup.balancing {
            Balancing::Ring => None,
            Balancing::Maglev => Some("MAGLEV"),
            Balancing::RoundRobin => Some("ROUND_ROBIN"),
        };
        if let Some(policy) = other {
            let cluster = cluster.as_object_mut().unwrap();
            cluster.remove("ring_hash_lb_config").unwrap();
            cluster["lb_policy"] = json!(policy);
        }
        let together = Arc::new(Barrier::new(setup.at_once));
        let mut engines = vec![];
        let mut members = setup.members;
        for port in PORTS {
            let engine = Engine::start(setup.blocks_max, Arc::clone(&together)).await;
            members.push((port, json!(engine.address().port())));
            engines.push(engine);
        }
        let world = World::with(Options {
            base: Some(base),
            plugin: setup.plugin,
            concurrency: setup.concurrency,
            members,
            ..Options::default()
        })
        .await;
        let fleet = Self { world, engines };
        fleet.await_healthy(PORTS.len()).await;
        fleet
    }

    /// Waits until Envoy takes so many engines for healthy.
    pub async fn await_healthy(&self, count: usize) {
        let healthy = poll(PATIENCE, async || {
            let stats = self.world.envoy.stats().await?;
            let healthy = stats.counter("envoy_cluster_membership_healthy", &UPSTREAM);
            (healthy == count as u64).then_some(())
        });
        healthy.await.expect("Envoy notices");
    }

    /// Sends them one after the other, each once the ones before have arrived, and waits for all
    /// answers.
    pub async fn send_all(&self, requests: &[&Request]) -> Vec<Response> {
        let arrived = || self.engines.iter().map(Engine::arrived).sum::<usize>();
        let mut sent = vec![];
        for request in requests {
            let before = arrived();
            sent.push(self.world.client.send(request).await);
            if sent.len() < requests.len() {
                let next = poll(PATIENCE, async || (arrived() > before).then_some(()));
                next.await.expect("the request arrives at an engine");
            }
        }
        let mut responses = vec![];
        for sent in sent {
            responses.push(sent.finish().await);
        }
        responses
    }

    /// The tokens of all that the engines have answered, as their usage said.
    pub fn tokens(&self) -> Tokens {
        self.engines.iter().map(Engine::tokens).sum()
    }

    /// All that the engines have answered, each with the engine's number.
    pub fn served(&self) -> Vec<(usize, Served)> {
        let each = self.engines.iter().enumerate();
        each.flat_map(|(n, engine)| engine.served().into_iter().map(move |served| (n, served)))
            .collect()
    }
}
