//! `bench system`: everything that runs for it, and its parts in order.

use std::rc::Rc;

use prompt_cache_e2e::{
    cpu::cpu_ns,
    index::{self, Index},
    layout::Layout,
    machine,
    process::Output,
};
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::{
    Settings,
    answer::Answers,
    client::Connection,
    envoys::{Envoy, Variant},
    latency, plot,
    prompts::{Cache, Prompt},
    requests, streams,
    upstream::{self, Pace},
    vm,
};

/// Attempts to read what was written, until the commit has landed.
const HOT_ATTEMPTS_MAX: usize = 1000;

/// The upstream, the index service, and one Envoy of each kind.
pub struct World {
    envoys: Vec<(Variant, Envoy)>,
    index: Index,
    index_pid: u32,
    _folder: TempDir,
}

pub async fn run(layout: &Layout, settings: &Settings) -> Result<(), String> {
    LocalSet::new().run_until(measure(layout, settings)).await
}

async fn measure(layout: &Layout, settings: &Settings) -> Result<(), String> {
    let machine = machine::line(layout);
    let mut world = World::start(layout, settings).await?;
    println!("{machine}");
    println!(
        "\n{} rounds of {} s each; a cell is the median of the rounds (least–greatest).",
        settings.rounds, settings.seconds
    );
    if settings.wants("requests") {
        let ratios = requests::run(&world, settings).await?;
        if let Some(path) = &settings.plot {
            plot::draw(path, &ratios)?;
            println!("\nDrawn in {}.", path.display());
        }
    }
    if settings.wants("streams") {
        streams::run(&world, settings, &[Pace::Paced, Pace::Flood]).await?;
    } else if settings.wants("flood") {
        streams::run(&world, settings, &[Pace::Flood]).await?;
    }
    if settings.wants("latency") {
        latency::run(&world, settings).await?;
    }
    world.stop().await;
    Ok(())
}

impl World {
    async fn start(layout: &Layout, settings: &Settings) -> Result<Self, String> {
        layout.require(&[layout.envoy(), layout.filter(), vm::module(layout)])?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let upstream = upstream::start(Rc::new(Answers::new()))
            .await
            .map_err(|e| format!("upstream: {e}"))?;
        let data_dir = folder.path().join("data");
        std::fs::create_dir(&data_dir).map_err(|e| e.to_string())?;
        let config = index::Config {
            port: 0,
            file: None,
            data_dir,
        };
        let mut index = Index::start(layout, &config, Output::LogIn(folder.path())).await?;
        let index_pid = index
            .process()
            .child()
            .id()
            .ok_or("the index service has ended")?;
        let mut envoys = Vec::new();
        for variant in Variant::ALL {
            if variant == Variant::Other && settings.other_filter.is_none() {
                continue;
            }
            let addresses = (upstream, index.address());
            let envoy = Envoy::start(layout, variant, addresses, settings, folder.path());
            envoys.push((variant, envoy.await?));
        }
        Ok(Self {
            envoys,
            index,
            index_pid,
            _folder: folder,
        })
    }

    /// Whether there is an Envoy of a kind.
    pub fn has(&self, variant: Variant) -> bool {
        self.envoys.iter().any(|(v, _)| *v == variant)
    }

    /// The Envoy of a kind.
    pub fn envoy(&self, variant: Variant) -> Result<&Envoy, String> {
        let found = self.envoys.iter().find(|(v, _)| *v == variant);
        found
            .map(|(_, envoy)| envoy)
            .ok_or_else(|| format!("no {variant:?}"))
    }

    /// Processor time of the index service, in nanoseconds.
    pub fn index_cpu_ns(&self) -> Result<u64, String> {
        cpu_ns(self.index_pid)
    }

    /// Sends `prompt` through an Envoy until it is read from the cache.
    pub async fn heat(&self, variant: Variant, prompt: &Prompt) -> Result<(), String> {
        let mut connection = Connection::open(self.envoy(variant)?.listener()).await?;
        connection.exchange(prompt, Cache::Any).await?;
        let mut result = Ok(());
        for _ in 0..HOT_ATTEMPTS_MAX {
            result = connection.exchange(prompt, Cache::Hot).await.map(drop);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn stop(&mut self) {
        for (_, envoy) in &mut self.envoys {
            envoy.stop().await;
        }
        self.index.process().stop().await;
    }
}
