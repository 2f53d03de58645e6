//! What is configured for people who watch: prices, their currency, where traces go.

use prompt_cache_core::ledger::Tier;

use super::raw::{RawPrices, RawTelemetry};
use super::validate::{Invalid, invalid};

/// Largest price of a million tokens.
const PRICE_MAX: f64 = 1e6;
/// Parts of the currency's unit in which prices are kept, so that they compare exactly.
const MICROS: f64 = 1e6;

/// What a million tokens of a model cost, in millionths of the currency's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    input: u64,
    read: u64,
    write: [u64; 3],
}

impl Prices {
    /// What `read` tokens of the cache and `written` tokens of a tier saved beside plain input, in
    /// the currency's unit. Negative where writes cost more than reads have brought back.
    pub fn saved(&self, tier: Tier, read: u64, written: u64) -> f64 {
        let [m5, h1, day] = self.write;
        let write = match tier {
            Tier::FiveMinutes => m5,
            Tier::OneHour => h1,
            Tier::Day => day,
        };
        let less = |price: u64| self.input as f64 - price as f64;
        (read as f64 * less(self.read) + written as f64 * less(write)) / MICROS / MICROS
    }
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Base address of an OTLP/HTTP receiver; `None` leaves it to the environment.
    pub otlp_endpoint: Option<String>,
    /// Of a million requests without a sampled parent, how many are traced.
    pub sample_ppm: u32,
}

pub(super) fn prices(raw: Option<&RawPrices>) -> Result<Option<Prices>, Invalid> {
    let Some(raw) = raw else { return Ok(None) };
    let price = |key: &str, price: f64| {
        if (0.0..=PRICE_MAX).contains(&price) {
            Ok((price * MICROS).round() as u64)
        } else {
            let reason = format!("{price} is not between 0 and {PRICE_MAX}");
            Err(invalid(&format!("prices.{key}"), reason))
        }
    };
    let write = |key: &str, given: Option<f64>| price(key, given.unwrap_or(raw.input));
    Ok(Some(Prices {
        input: price("input", raw.input)?,
        read: price("read", raw.read)?,
        write: [
            write("write_5m", raw.write_5m)?,
            write("write_1h", raw.write_1h)?,
            write("write_24h", raw.write_24h)?,
        ],
    }))
}

pub(super) fn currency(raw: Option<String>) -> Result<Option<String>, Invalid> {
    match raw {
        Some(code) if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()) => Err(
            invalid("currency", format!("{code:?} is not a code like USD")),
        ),
        code => Ok(code),
    }
}

pub(super) fn telemetry(raw: RawTelemetry) -> Result<TelemetryConfig, Invalid> {
    const ENDPOINT: &str = "telemetry.otlp_endpoint";
    if let Some(url) = &raw.otlp_endpoint {
        let uri: axum::http::Uri = url
            .parse()
            .map_err(|_| invalid(ENDPOINT, "is not a URL like http://127.0.0.1:4318"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            let reason = "is not an http:// or https:// URL without a query";
            return Err(invalid(ENDPOINT, reason));
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            let reason = "holds a password: put it into OTEL_EXPORTER_OTLP_HEADERS";
            return Err(invalid(ENDPOINT, reason));
        }
    }
    if !(0.0..=1.0).contains(&raw.sample_ratio) {
        let reason = format!("{} is not between 0 and 1", raw.sample_ratio);
        return Err(invalid("telemetry.sample_ratio", reason));
    }
    Ok(TelemetryConfig {
        otlp_endpoint: raw.otlp_endpoint,
        sample_ppm: (raw.sample_ratio * MICROS).round() as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_weigh_reads_against_dearer_writes() {
        let raw = RawPrices {
            input: 2.0,
            read: 0.5,
            write_5m: Some(2.5),
            write_1h: Some(4.0),
            write_24h: None,
        };
        let prices = prices(Some(&raw)).unwrap().unwrap();
        let table = [
            (Tier::FiveMinutes, 1_000_000, 0, 1.5),
            (Tier::FiveMinutes, 0, 1_000_000, -0.5),
            (Tier::FiveMinutes, 3_000_000, 1_000_000, 4.0),
            (Tier::OneHour, 0, 500_000, -1.0),
            (Tier::Day, 0, 1_000_000, 0.0),
        ];
        for (tier, read, written, saved) in table {
            let ours = prices.saved(tier, read, written);
            assert!((ours - saved).abs() < 1e-9, "{tier:?} {read} {written}");
        }
    }
}
