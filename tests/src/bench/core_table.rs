//! `bench core`: each case natively and inside the VM, ours beside the plain way, and the bars.

use prompt_cache_e2e::{layout::Layout, machine};

use crate::{Settings, corpus::cases::cases, vm};

/// What issue 3 asks for: case, where, most nanoseconds for one pass over `bytes`.
const BARS: [(&str, Place, Bar); 5] = [
    ("edit, chat 100 KB", Place::Native, Bar::BytesPerSecond(1e9)),
    ("edit, chat 100 KB", Place::Vm, Bar::BytesPerSecond(5e8)),
    (
        "scan + hash, chat 100 KB",
        Place::Vm,
        Bar::Microseconds(250.0),
    ),
    (
        "scan + hash, chat 10 KB",
        Place::Vm,
        Bar::Microseconds(25.0),
    ),
    (
        "response, 1 KiB of whole events",
        Place::Native,
        Bar::BytesPerSecond(2e9),
    ),
];
/// What one request may hold beside its body and its output, in bytes.
const MEMORY_BYTES_MAX: u64 = 64 << 10;
/// By which linear memory grows.
const PAGE_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Native,
    Vm,
}

#[derive(Clone, Copy)]
enum Bar {
    BytesPerSecond(f64),
    Microseconds(f64),
}

/// One row: medians and fastest samples, in nanoseconds.
struct Row {
    name: &'static str,
    bytes: usize,
    /// Ours and the plain way, fastest and median.
    native: [(u64, u64); 2],
    vm: [(u64, u64); 2],
}

pub async fn print(layout: &Layout, settings: &Settings) -> Result<(), String> {
    let machine = machine::line(layout);
    eprintln!("in the VM …");
    let measured = vm::measure(layout, settings.envoy_core).await?;
    eprintln!("natively …");
    let mut rows = Vec::new();
    for case in &mut cases() {
        let line = measured.cases.iter().find(|line| line.case == case.name);
        let line = line.ok_or_else(|| format!("the VM did not run {}", case.name))?;
        let pair = case.time().map(|timing| (timing.min_ns, timing.median_ns));
        rows.push(Row {
            name: case.name,
            bytes: case.bytes,
            native: pair,
            vm: [
                (line.min_ns, line.median_ns),
                (line.plain_min_ns, line.plain_median_ns),
            ],
        });
    }
    println!("{machine}\n");
    println!(
        "Median time of one pass and its throughput; in parentheses the time of the fastest sample.\n"
    );
    println!(
        "| case | bytes | native | plain, native | Envoy's VM | plain, VM | VM: plain ÷ ours |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for row in &rows {
        let cell = |(min_ns, median_ns): (u64, u64)| {
            format!(
                "{:.1} µs ({:.1}), {:.2} GB/s",
                micros(median_ns),
                micros(min_ns),
                bytes_per_second(row.bytes, median_ns) / 1e9
            )
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.1} |",
            row.name,
            row.bytes,
            cell(row.native[0]),
            cell(row.native[1]),
            cell(row.vm[0]),
            cell(row.vm[1]),
            row.vm[1].1 as f64 / row.vm[0].1 as f64
        );
    }
    println!("\n| bar | wanted | median | fastest | met |\n|---|--:|--:|--:|---|");
    for (name, place, bar) in BARS {
        let row = rows.iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| format!("no case {name}"))?;
        let (at, (min_ns, median_ns)) = match place {
            Place::Native => ("native", row.native[0]),
            Place::Vm => ("VM", row.vm[0]),
        };
        let (wanted, median, fastest, met) = bar.judge(row.bytes, min_ns, median_ns);
        println!("| {name}, {at} | {wanted} | {median} | {fastest} | {met} |");
    }
    for memory in &measured.memory {
        let beside = memory.grown_bytes.saturating_sub(memory.output_bytes);
        let verdict = match beside {
            ..=MEMORY_BYTES_MAX => "yes",
            // Memory grows by pages: the exact figure is the native one of `--bench memory`.
            _ if beside < MEMORY_BYTES_MAX + PAGE_BYTES => "within the last page",
            _ => "no",
        };
        println!(
            "| linear memory of one request of {} bytes beside body and output | ≤ {} KiB | {} KiB | | {verdict} |",
            memory.memory,
            MEMORY_BYTES_MAX >> 10,
            beside >> 10,
        );
    }
    println!("\n| host call | median, ns | fastest, ns |\n|---|--:|--:|");
    for call in &measured.host_calls {
        println!(
            "| {} | {} | {} |",
            call.host_call, call.median_ns, call.min_ns
        );
    }
    Ok(())
}

impl Bar {
    /// Wanted, median, fastest, verdict.
    fn judge(self, bytes: usize, min_ns: u64, median_ns: u64) -> (String, String, String, String) {
        match self {
            Self::BytesPerSecond(wanted) => {
                let [fastest, median] = [min_ns, median_ns].map(|ns| bytes_per_second(bytes, ns));
                let show = |speed: f64| format!("{:.2} GB/s", speed / 1e9);
                let met = met(median >= wanted, fastest >= wanted);
                (
                    format!("≥ {}", show(wanted)),
                    show(median),
                    show(fastest),
                    met,
                )
            }
            Self::Microseconds(wanted) => {
                let [fastest, median] = [min_ns, median_ns].map(micros);
                let show = |time: f64| format!("{time:.1} µs");
                let met = met(median <= wanted, fastest <= wanted);
                (
                    format!("≤ {}", show(wanted)),
                    show(median),
                    show(fastest),
                    met,
                )
            }
        }
    }
}

fn met(median: bool, fastest: bool) -> String {
    match (median, fastest) {
        (true, _) => "yes",
        (false, true) => "fastest only",
        (false, false) => "no",
    }
    .to_owned()
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn bytes_per_second(bytes: usize, ns: u64) -> f64 {
    bytes as f64 * 1e9 / ns as f64
}
