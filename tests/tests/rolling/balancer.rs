//! Sends each request to the next of some proxies, as a load balancer that hears which there are.

use std::sync::{Arc, Mutex};

use prompt_cache_e2e::client::Client;

#[derive(Clone)]
pub struct Balancer(Arc<Mutex<Proxies>>);

struct Proxies {
    all: Vec<Client>,
    next: usize,
}

impl Balancer {
    pub fn new(all: &[Client]) -> Self {
        Self(Arc::new(Mutex::new(Proxies {
            all: all.to_vec(),
            next: 0,
        })))
    }

    /// The proxies that requests go to from now on.
    pub fn change(&self, all: &[Client]) {
        self.0.lock().unwrap().all = all.to_vec();
    }

    pub fn next(&self) -> Client {
        let mut proxies = self.0.lock().unwrap();
        proxies.next += 1;
        proxies.all[proxies.next % proxies.all.len()]
    }
}
