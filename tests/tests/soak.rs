//! A short soak: requests of every kind, all answered as they have to be, and nothing left behind.
//! The long form is `./just soak`.

use std::time::Duration;

use prompt_cache_e2e::{
    layout::Layout,
    load::soak::{self, Report, Settings, sample::QUANTITIES},
};

/// Requests at once, and so what may be open for them to LLM and service at any moment.
const CONNECTIONS: u8 = 16;

/// All requests: `SOAK_REQUESTS` from the environment.
fn requests() -> u64 {
    std::env::var("SOAK_REQUESTS").map_or(20_000, |text| text.parse().unwrap())
}

/// What is sampled by name: warm, and in the end.
fn of(report: &Report, name: &str) -> (f64, f64) {
    let index = QUANTITIES
        .iter()
        .position(|quantity| quantity.name == name)
        .unwrap_or_else(|| panic!("nothing is called {name}"));
    let warm_at = report.warm_at();
    let warm = report.samples.iter().find(|s| s.requests >= warm_at);
    (warm.unwrap().values[index], report.idle.values[index])
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let settings = Settings {
        requests: requests(),
        seed: 2,
        connections: CONNECTIONS.into(),
        every: Duration::from_millis(500),
        plot: None,
    };
    let layout = Layout::of_tests();
    let report = soak::run(&layout, &settings)
        .await
        .unwrap_or_else(|message| panic!("{message}"));
    println!("{report}");
    assert_eq!(report.wrong_answers(), [""; 0], "{report}");
    // What is counted does not depend on how long it ran.
    for name in ["Envoy's stats", "service's metrics"] {
        let (warm, end) = of(&report, name);
        assert_eq!(warm, end, "{name}\n{report}");
    }
    // No client is left: what is open are the connections to LLM and service, and files. How many
    // of those it once took depends on how busy the machine was; left behind are thousands.
    for name in [
        "Envoy's connections",
        "Envoy's file descriptors",
        "service's file descriptors",
    ] {
        let (warm, end) = of(&report, name);
        assert!(
            end <= warm + f64::from(CONNECTIONS),
            "{name}: {warm} became {end}\n{report}"
        );
    }
    // Pages of the linear memory never go back: 8 of them in 13,000 requests are 40 bytes each.
    let (warm, end) = of(&report, "filter VM's memory");
    assert!(end <= warm + 8.0, "{warm} pages became {end}\n{report}");
}
