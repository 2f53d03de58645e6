//! What a table was measured on.

use std::fs;

use crate::layout::Layout;

/// One line: processor, cores, kernel, Envoy, filter, load of the machine.
pub fn line(layout: &Layout) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let cores = info.lines().filter(|l| l.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load
        .split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned();
    let envoy = layout.envoy();
    let envoy = envoy.file_name().unwrap_or_default().to_string_lossy();
    let bytes = fs::metadata(layout.filter()).map_or(0, |m| m.len());
    format!(
        "{} ({} cores, family {} model {}), Linux {}, {envoy}, filter {} of {bytes} bytes, load average at the start {load}",
        field("model name"),
        cores,
        field("cpu family"),
        field("model\t"),
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
    )
}
