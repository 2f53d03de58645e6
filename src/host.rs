//! The only door to Envoy: every host call the filter makes, each returning a `Result`.
//!
//! The SDK's own wrappers panic on statuses they do not expect, so each function names the phase
//! in which it may be called; callers keep to it by their own state. Getters use the byte
//! variants, because the string ones panic on values that are not UTF-8.

use std::{borrow::Cow, time::Duration};

use proxy_wasm::{
    hostcalls,
    types::{BufferType, Bytes, MapType, MetricType, Status},
};

/// A host call that failed, with Envoy's status.
pub type HostResult<T> = Result<T, Status>;

/// All headers of one message. Read at once: a getter for each name would enter Envoy, and Envoy
/// the VM again to allocate the value, as often as there are names.
#[derive(Debug, Default)]
pub struct Headers(Vec<(String, Bytes)>);

impl Headers {
    /// The value of a header; several of the same name come joined by commas.
    pub fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.0.iter().filter(|(n, _)| n == name);
        let mut values = named.map(|(_, value)| value.as_slice());
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(Cow::Borrowed(first));
        };
        let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
        Some(Cow::Owned(all.join(&b',')))
    }

    /// Whether there is such a header.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

/// The request's headers, in their callback.
pub fn request_headers() -> HostResult<Headers> {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders).map(Headers)
}

/// Replaces a request header, while the headers are held.
pub fn set_request_header(name: &str, value: &str) -> HostResult<()> {
    hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value))
}

/// Sets a request header to a value that need not be UTF-8, while the headers are held.
pub fn set_request_header_bytes(name: &str, value: &[u8]) -> HostResult<()> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value))
}

/// Removes a request header, while the headers are held.
pub fn remove_request_header(name: &str) -> HostResult<()> {
    hostcalls::remove_map_value(MapType::HttpRequestHeaders, name)
}

/// The response's headers, in their callback.
pub fn response_headers() -> HostResult<Headers> {
    hostcalls::get_map_bytes(MapType::HttpResponseHeaders).map(Headers)
}

/// Removes a response header, in the response-headers callback.
pub fn remove_response_header(name: &str) -> HostResult<()> {
    hostcalls::remove_map_value(MapType::HttpResponseHeaders, name)
}

/// The whole held request body, in the last body callback or the trailers callback.
pub fn request_body(bytes_max: usize) -> HostResult<Vec<u8>> {
    Ok(hostcalls::get_buffer(BufferType::HttpRequestBody, 0, bytes_max)?.unwrap_or_default())
}

/// Replaces the whole held request body, in the callback that read it.
pub fn set_request_body(body: &[u8]) -> HostResult<()> {
    hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, body)
}

/// Bytes `start..start + length` of the response bytes at hand, in a body callback.
pub fn response_body(start: usize, length: usize) -> HostResult<Vec<u8>> {
    Ok(hostcalls::get_buffer(BufferType::HttpResponseBody, start, length)?.unwrap_or_default())
}

/// Replaces all response bytes at hand: in a body callback, or while a pause holds some.
pub fn set_response_body(body: &[u8]) -> HostResult<()> {
    hostcalls::set_buffer(BufferType::HttpResponseBody, 0, usize::MAX, body)
}

/// Lets a response go on whose end is held. Never before the end was seen: older Envoys lose
/// the next chunk.
pub fn resume_response() -> HostResult<()> {
    hostcalls::resume_http_response()
}

/// Answers the request here, before anything of it was forwarded.
pub fn send_response(status: u32, headers: &[(&str, &str)], body: &[u8]) -> HostResult<()> {
    hostcalls::send_http_response(status, headers.to_vec(), Some(body))
}

/// Starts a callout and returns its token. `BadArgument`: no such cluster; `InternalFailure`: no
/// host or too many requests. After an error no callback follows.
pub fn dispatch(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout_ms: u64,
) -> HostResult<u32> {
    // A timeout of zero would wait for ever.
    let timeout = Duration::from_millis(timeout_ms.clamp(1, u64::from(u32::MAX)));
    hostcalls::dispatch_http_call(cluster, headers.to_vec(), Some(body), Vec::new(), timeout)
}

/// A header of a callout's answer, in its callback.
pub fn callout_header(name: &str) -> HostResult<Option<Vec<u8>>> {
    hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, name)
}

/// The body of a callout's answer, in its callback.
pub fn callout_body(length: usize) -> HostResult<Vec<u8>> {
    Ok(hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, length)?.unwrap_or_default())
}

/// The plugin's configuration, in `on_configure`.
pub fn plugin_configuration() -> HostResult<Vec<u8>> {
    let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX)?;
    Ok(bytes.unwrap_or_default())
}

/// Starts or changes the root context's tick.
pub fn set_tick_period(period_ms: u64) -> HostResult<()> {
    hostcalls::set_tick_period(Duration::from_millis(period_ms.min(u64::from(u32::MAX))))
}

/// An Envoy attribute as bytes; `None` if it is not set.
pub fn attribute(path: &[String]) -> HostResult<Option<Vec<u8>>> {
    hostcalls::get_property(path.iter().map(String::as_str).collect())
}

/// Writes `wasm.<name>` of the stream's filter state.
pub fn set_filter_state(name: &str, value: &[u8]) -> HostResult<()> {
    hostcalls::set_property(vec![name], Some(value))
}

/// Defines a metric, once per VM and name.
pub fn define_metric(kind: MetricType, name: &str) -> HostResult<u32> {
    hostcalls::define_metric(kind, name)
}

/// Adds to a counter.
pub fn increment(metric: u32, by: i64) -> HostResult<()> {
    hostcalls::increment_metric(metric, by)
}

/// Records a value of a histogram, sets a gauge.
pub fn record(metric: u32, value: u64) -> HostResult<()> {
    hostcalls::record_metric(metric, value)
}
