//! One HTTP stream: Envoy's callbacks, dispatched by the phase the stream is in.
//!
//! Callbacks also come for local replies, Envoy's own 413 and 503 among them, and `on_log` for
//! every stream, whether it had a request phase or not. Each of them acts by [`Phase`] only.

use std::{mem, rc::Rc};

use prompt_cache_core::api::Api;
use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};

use crate::{
    exchange::Exchange,
    host,
    request::{self, Sender},
    shared::Shared,
};

/// One stream of the filter.
pub struct Stream {
    shared: Option<Rc<Shared>>,
    phase: Phase,
}

enum Phase {
    /// Not ours, or no longer: everything passes.
    Untouched,
    /// The request's headers are held until its body is whole.
    Collecting { sender: Sender, body_bytes: usize },
    /// The request went to the upstream.
    Forwarded(Box<Exchange>),
}

impl Stream {
    pub const fn new(shared: Option<Rc<Shared>>) -> Self {
        Self {
            shared,
            phase: Phase::Untouched,
        }
    }

    /// The end of the request's body: plan it, edit it, let it go.
    fn forward(&mut self) -> Action {
        let phase = mem::replace(&mut self.phase, Phase::Untouched);
        let (Some(shared), Phase::Collecting { sender, body_bytes }) = (&self.shared, phase) else {
            return Action::Continue;
        };
        match request::forward(shared, sender, body_bytes) {
            request::Forwarded::Passed(exchange) => {
                self.phase = Phase::Forwarded(Box::new(exchange));
                Action::Continue
            }
            request::Forwarded::Answered => Action::Pause,
            request::Forwarded::Unread => Action::Continue,
        }
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_bytes: usize, _: usize) {
        if let Phase::Forwarded(exchange) = &mut self.phase {
            exchange.on_answer(token, headers, body_bytes);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(shared) = &self.shared else {
            return Action::Continue;
        };
        if let Some(name) = &shared.config.prefix_hash_header {
            // It chooses the engine: only a hash from here may, on whatever path.
            let _ = host::remove_request_header(name);
        }
        if end_of_stream {
            return Action::Continue;
        }
        let headers = host::request_headers().unwrap_or_default();
        let header = |name| headers.get(name).unwrap_or_default();
        let Some(api) = Api::of(&header(":method"), &header(":path")) else {
            return Action::Continue;
        };
        #[cfg(feature = "trap")]
        if !header("x-prompt-cache-trap").is_empty() {
            std::process::abort();
        }
        if request::declared_too_large(&shared.config, &headers) {
            request::refuse_size(shared, api);
            return Action::Pause;
        }
        self.phase = Phase::Collecting {
            sender: Sender::of(shared, &headers, api),
            body_bytes: 0,
        };
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let (Some(shared), Phase::Collecting { body_bytes, sender }) =
            (&self.shared, &mut self.phase)
        else {
            return Action::Continue;
        };
        // While paused, `size` is all that is held.
        *body_bytes = size;
        if size > shared.config.max_request_bytes {
            request::refuse_size(shared, sender.api);
            self.phase = Phase::Untouched;
            return Action::Pause;
        }
        if end_of_stream {
            self.forward()
        } else {
            Action::Pause
        }
    }

    /// Trailers are the end of the body: no further body callback comes.
    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.forward()
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if let Phase::Forwarded(exchange) = &mut self.phase {
            exchange.on_response_headers(end_of_stream);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.phase {
            Phase::Forwarded(exchange) => exchange.on_response_body(size, end_of_stream),
            Phase::Untouched | Phase::Collecting { .. } => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        match &mut self.phase {
            Phase::Forwarded(exchange) => exchange.on_response_trailers(),
            Phase::Untouched | Phase::Collecting { .. } => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        if let Phase::Forwarded(exchange) = mem::replace(&mut self.phase, Phase::Untouched) {
            exchange.finish();
        }
        if let Some(shared) = &self.shared {
            shared.metrics.stream_ended();
            #[cfg(feature = "memory-gauge")]
            shared.metrics.vm_memory.show();
        }
    }
}
