//! Where the built programs and the configs are.

use std::path::{Path, PathBuf};

/// Envoy version that runs unless `ENVOY_VERSION` says otherwise.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The files of one checkout, as `./just build` leaves them.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    envoy_version: String,
    others: Others,
}

/// What tests run instead of the checkout's own programs, where the environment says so: how
/// `./just e2e-docker` runs them against containers.
#[derive(Clone, Debug, Default)]
struct Others {
    envoy: Option<PathBuf>,
    filter: Option<PathBuf>,
    index: Option<PathBuf>,
    standalone: Option<PathBuf>,
}

impl Layout {
    /// The checkout that this crate was built from; for tests.
    pub fn of_tests() -> Self {
        let other = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Self {
            others: Others {
                envoy: other("E2E_ENVOY"),
                filter: other("E2E_FILTER"),
                index: other("E2E_INDEX"),
                standalone: None,
            },
            ..Self::at(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        }
    }

    /// The same with the programs and the configuration of an older release, from the folder that
    /// `UPGRADE_FROM` names (`tests/upgrade/run` builds one); with this checkout's own where it is
    /// not set.
    pub fn of_older_release() -> Self {
        let mut layout = Self::of_tests();
        if let Some(folder) = std::env::var_os("UPGRADE_FROM").map(PathBuf::from) {
            layout.others = Others {
                envoy: layout.others.envoy,
                filter: Some(folder.join("prompt-cache-filter.wasm")),
                index: Some(folder.join("prompt-cache-index")),
                standalone: Some(folder.join("standalone.yaml")),
            };
        }
        layout
    }

    /// The same with the index service of `other`.
    pub fn with_index_of(mut self, other: &Self) -> Self {
        self.others.index = Some(other.index());
        self
    }

    /// The checkout whose `dist/` holds the running program.
    pub fn of_program() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
        let root = program
            .parent()
            .and_then(Path::parent)
            .ok_or("own path has no parents")?;
        Ok(Self::at(root.to_owned()))
    }

    fn at(root: PathBuf) -> Self {
        let envoy_version =
            std::env::var("ENVOY_VERSION").unwrap_or_else(|_| ENVOY_VERSION.to_owned());
        Self {
            root: root.canonicalize().unwrap_or(root),
            envoy_version,
            others: Others::default(),
        }
    }

    /// The checkout's top folder; paths in the shipped configs are relative to it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The Envoy that `./just --ensure envoy` fetched.
    pub fn envoy(&self) -> PathBuf {
        self.others.envoy.clone().unwrap_or_else(|| {
            self.root
                .join(".tools")
                .join(format!("envoy-{}", self.envoy_version))
        })
    }

    /// The filter.
    pub fn filter(&self) -> PathBuf {
        let ours = || self.root.join("dist/prompt-cache-filter.wasm");
        self.others.filter.clone().unwrap_or_else(ours)
    }

    /// The filter whose VM traps on the request header `x-prompt-cache-trap`, and shows the size
    /// of its memory in the gauge `promptcache_vm_memory_pages`.
    pub fn trapping_filter(&self) -> PathBuf {
        self.root
            .join("dist/test-only/prompt-cache-filter-trap.wasm")
    }

    /// The index service.
    pub fn index(&self) -> PathBuf {
        let ours = || self.root.join("dist/prompt-cache-index");
        self.others.index.clone().unwrap_or_else(ours)
    }

    /// The stand-in LLM.
    pub fn stand_in(&self) -> PathBuf {
        self.root.join("dist/stand-in-llm")
    }

    /// The folder of shipped Envoy configs.
    pub fn envoy_configs(&self) -> PathBuf {
        self.root.join("envoy")
    }

    /// The config that stack and tests run.
    pub fn standalone(&self) -> PathBuf {
        let ours = || self.envoy_configs().join("standalone.yaml");
        self.others.standalone.clone().unwrap_or_else(ours)
    }

    /// `Err` names the first of `files` that is not there, and what makes it.
    pub fn require(&self, files: &[PathBuf]) -> Result<(), String> {
        match files.iter().find(|file| !file.exists()) {
            None => Ok(()),
            Some(file) => Err(format!(
                "{} is missing: `./just test`, `./just up` and `./just demo` build or fetch it",
                file.strip_prefix(&self.root).unwrap_or(file).display()
            )),
        }
    }
}
