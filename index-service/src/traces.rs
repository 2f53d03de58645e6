//! Traces: spans of requests over OTLP/HTTP. Off unless an endpoint is given.
//!
//! Spans wait in a bounded queue that a thread of its own empties; a full one drops them. A
//! receiver that is slow or away therefore delays nothing. Only spans of this crate are sent, and
//! their attributes are numbers, outcomes and configured names.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use prompt_cache_core::wire::{CLASSIFY_PATH, COMMIT_PATH};
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::TelemetryConfig;

/// Spans that wait for their export.
const QUEUE_SPANS_MAX: usize = 2048;
/// Spans of one export.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time a span waits for others.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time for one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time that the end of the process waits for the last export.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Most of a receiver's answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Where a receiver takes traces.
const TRACES_PATH: &str = "/v1/traces";
/// What says where traces go when the configuration does not.
const ENVIRONMENT: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// The exporter, if there is one.
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Starts the exporter's thread where an endpoint is given. Does not connect.
    ///
    /// # Errors
    /// When the endpoint is not usable.
    pub fn start(config: &TelemetryConfig) -> Result<Self, String> {
        let by_environment = ENVIRONMENT
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()));
        if config.otlp_endpoint.is_none() && !by_environment {
            return Ok(Self(None));
        }
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .with_retry_policy(opentelemetry_otlp::RetryPolicy::disabled())
            .with_http_client(Client::new());
        if let Some(base) = &config.otlp_endpoint {
            exporter =
                exporter.with_endpoint(format!("{}{TRACES_PATH}", base.trim_end_matches('/')));
        }
        let exporter = exporter.build().map_err(|error| error.to_string())?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let ratio = f64::from(config.sample_ppm) / 1e6;
        let root = Sampler::TraceIdRatioBased(ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(
                BatchSpanProcessor::builder(exporter)
                    .with_batch_config(batches)
                    .build(),
            )
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(
                Resource::builder()
                    .with_service_name("prompt-cache-index")
                    .build(),
            )
            .build();
        Ok(Self(Some(provider)))
    }

    /// What the subscriber needs, if there is an exporter.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer("prompt-cache-index");
        let own = FilterFn::new(|metadata| {
            metadata.is_span() && metadata.target().starts_with("prompt_cache_index")
        });
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(own);
        Some(layer)
    }

    /// Exports what waits, for a moment.
    pub fn stop(self) {
        if let Some(provider) = self.0 {
            let _ = provider.shutdown_with_timeout(STOP_TIMEOUT);
        }
    }
}

/// Puts a classification or a commit into a span, below the caller's.
pub async fn trace(request: Request, next: Next) -> Response {
    let span = match request.uri().path() {
        CLASSIFY_PATH => info_span!(
            "classify",
            otel.kind = "server",
            http.response.status_code = Empty,
            model = Empty,
            outcome = Empty,
            candidates = Empty,
            read_tokens = Empty,
            created_tokens = Empty,
        ),
        COMMIT_PATH => info_span!(
            "commit",
            otel.kind = "server",
            http.response.status_code = Empty,
            commits = Empty,
            reads = Empty,
            written = Empty,
            dropped = Empty,
        ),
        _ => return next.run(request).await,
    };
    if span.is_disabled() {
        return next.run(request).await;
    }
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
    let _ = span.set_parent(parent);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

/// The exporter's HTTP client. It blocks: the exporter's thread has nothing else to do.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    /// Whether the last export failed; a change is logged, and each failure is not.
    failing: AtomicBool,
}

impl Client {
    fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(EXPORT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .new_agent();
        Self {
            agent,
            failing: AtomicBool::new(false),
        }
    }

    fn send(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = axum::http::Request::from_parts(parts, body.as_ref());
        let (parts, mut answer) = self.agent.run(request)?.into_parts();
        let limited = answer.with_config().limit(ANSWER_BYTES_MAX);
        let bytes = limited.read_to_vec()?;
        Ok(axum::http::Response::from_parts(parts, bytes.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let failed = match &answer {
            Ok(answer) => !answer.status().is_success(),
            Err(_) => true,
        };
        if self.failing.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                tracing::warn!("traces are not taken: spans are dropped");
            } else {
                tracing::info!("traces are taken again");
            }
        }
        answer
    }
}
