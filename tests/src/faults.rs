//! A small proxy before the index service that records what the filter sends and misbehaves on
//! request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prompt_cache_core::wire::{
    CLASSIFY_PATH, COMMIT_PATH, POLICY_PATH, READY_PATH, TEXT_CONTENT_TYPE,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::http::{Connection, Headers, Request, encode_head};

/// One of the service's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/classify`, by hashes or with the prompt.
    Classify,
    /// The same with the prompt: a fault of its own, else that of `Classify`.
    Text,
    /// `POST /v1/commit`.
    Commit,
    /// `GET /v1/policy`.
    Policy,
    /// `GET /readyz`, the breaker's probe.
    Ready,
}

impl Route {
    const ALL: [Self; 5] = [
        Self::Classify,
        Self::Text,
        Self::Commit,
        Self::Policy,
        Self::Ready,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Classify | Self::Text => CLASSIFY_PATH,
            Self::Commit => COMMIT_PATH,
            Self::Policy => POLICY_PATH,
            Self::Ready => READY_PATH,
        }
    }
}

impl Route {
    fn takes(self, request: &Request) -> bool {
        let text = request.headers.get("content-type") == Some(TEXT_CONTENT_TYPE);
        request.target == self.path() && (text || self != Self::Text)
    }
}

/// What the proxy does with a call.
#[derive(Clone, Debug, Default)]
pub enum Fault {
    /// Passes it on.
    #[default]
    None,
    /// Answers with this status and body itself.
    Answer(u16, Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// Promises more bytes than it sends, then closes.
    Truncate,
    /// Never answers; over when the filter closes the connection.
    Hang,
    /// Passes it on once the gate opens.
    Hold(Gate),
    /// Passes it on after a while.
    Delay(Duration),
    /// Answers with these bytes, HTTP or not, then closes.
    Raw(Vec<u8>),
    /// Passes it on; of the answer only so many bytes return, head included, then it closes.
    Cut(usize),
}

/// Changes what passes through, for tests of those who watch.
#[derive(Clone, Copy, Debug)]
pub struct Tamper {
    /// Changes a call on its way to the service.
    pub request: fn(&mut Request),
    /// Changes the body of the answer to a call of this path.
    pub answer: fn(&str, &mut Vec<u8>),
}

/// Holds calls back until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Lets every held call, and later ones, pass.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // Fails only if the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// The proxy.
pub struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

struct Shared {
    service: SocketAddr,
    state: Mutex<State>,
}

struct State {
    faults: [Fault; Route::ALL.len()],
    /// Commits that are being answered, and when that last changed.
    commits: usize,
    commits_changed: Instant,
    tamper: Option<Tamper>,
    forgets: bool,
    seen: Vec<Request>,
    connections: Vec<JoinHandle<()>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            faults: <[Fault; Route::ALL.len()]>::default(),
            commits: 0,
            commits_changed: Instant::now(),
            tamper: None,
            forgets: false,
            seen: vec![],
            connections: vec![],
        }
    }
}

/// A commit that is being answered.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn begin(shared: &Arc<Shared>) -> Self {
        let mut state = shared.state();
        state.commits += 1;
        state.commits_changed = Instant::now();
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.commits -= 1;
        state.commits_changed = Instant::now();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults {
    /// Starts passing calls on to `service`.
    pub async fn start(service: SocketAddr) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), service).await
    }

    /// The same on an address of the caller's choice.
    pub async fn start_at(address: SocketAddr, service: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            service,
            state: Mutex::default(),
        });
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let accept = tokio::spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            accept,
        }
    }

    /// Where the filter finds the service.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, calls of `route` meet `fault`.
    pub fn set(&self, route: Route, fault: Fault) {
        self.shared.state().faults[route as usize] = fault;
    }

    /// From now on, every call and answer that is passed on is changed.
    pub fn tamper(&self, tamper: Tamper) {
        self.shared.state().tamper = Some(tamper);
    }

    /// From now on, calls are not kept for [`Faults::seen`]: for runs of hours.
    pub fn forget(&self) {
        self.shared.state().forgets = true;
    }

    /// Holds calls of `route` until the gate is opened.
    pub fn hold(&self, route: Route) -> Gate {
        let gate = Gate::default();
        self.set(route, Fault::Hold(gate.clone()));
        gate
    }

    /// For how long no commit has been on its way through here.
    pub fn commits_quiet_for(&self) -> Duration {
        let state = self.shared.state();
        if state.commits > 0 {
            return Duration::ZERO;
        }
        state.commits_changed.elapsed()
    }

    /// The calls of `route` so far, oldest first.
    pub fn seen(&self, route: Route) -> Vec<Request> {
        let state = self.shared.state();
        state
            .seen
            .iter()
            .filter(|request| route.takes(request))
            .cloned()
            .collect()
    }

    /// Closes every connection and refuses new ones.
    pub async fn down(&mut self) {
        self.accept.abort();
        // Ends with an error, being aborted; the listener is closed then.
        let _ = (&mut self.accept).await;
        for connection in self.shared.state().connections.drain(..) {
            connection.abort();
        }
    }

    /// Listens again, on the same port.
    pub async fn up(&mut self) {
        let listener = bind(self.address).await;
        self.accept = tokio::spawn(accept(listener, self.shared.clone()));
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address)
        .await
        .unwrap_or_else(|e| panic!("{address}: {e}"))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = tokio::spawn(converse(Connection::new(stream), shared.clone()));
        let mut state = shared.state();
        state.connections.retain(|other| !other.is_finished());
        state.connections.push(connection);
    }
}

/// Serves one connection until it ends or a fault ends it.
async fn converse(mut filter: Connection, shared: Arc<Shared>) {
    while let Some(request) = filter.read_request().await {
        let (fault, tamper) = {
            let mut state = shared.state();
            if !state.forgets {
                state.seen.push(request.clone());
            }
            let routes = Route::ALL.into_iter().filter(|route| route.takes(&request));
            // The last that has one: that of `Text` before that of `Classify`.
            let fault = routes
                .map(|route| state.faults[route as usize].clone())
                .rfind(|fault| !matches!(fault, Fault::None))
                .unwrap_or_default();
            (fault, state.tamper)
        };
        let commits = Route::Commit.takes(&request);
        let _in_flight = commits.then(|| InFlight::begin(&shared));
        let answer = match fault {
            Fault::None => pass_on(request, shared.service, tamper).await,
            Fault::Hold(gate) => {
                gate.passed().await;
                pass_on(request, shared.service, tamper).await
            }
            Fault::Delay(time) => {
                sleep(time).await;
                pass_on(request, shared.service, tamper).await
            }
            Fault::Raw(bytes) => {
                let _ = filter.write(&bytes).await;
                None
            }
            Fault::Cut(bytes) => {
                if let Some(answer) = pass_on(request, shared.service, tamper).await {
                    let _ = filter.write(&answer[..bytes.min(answer.len())]).await;
                }
                None
            }
            Fault::Answer(status, body) => {
                let length = body.len().to_string();
                let headers = Headers::of(&[
                    ("content-type", "application/json"),
                    ("content-length", &length),
                ]);
                Some([encode_head(status, &headers), body].concat())
            }
            Fault::Truncate => {
                let headers = Headers::of(&[("content-length", "1000")]);
                let _ = filter.write(&encode_head(200, &headers)).await;
                None
            }
            Fault::Close => None,
            Fault::Hang => {
                // Until the other side gives up: it sends nothing more on this connection.
                let _ = filter.read_request().await;
                None
            }
        };
        let Some(answer) = answer else { return };
        if filter.write(&answer).await.is_err() {
            return;
        }
    }
}

async fn pass_on(
    mut request: Request,
    service: SocketAddr,
    tamper: Option<Tamper>,
) -> Option<Vec<u8>> {
    let mut connection = Connection::new(TcpStream::connect(service).await.ok()?);
    if let Some(tamper) = tamper {
        (tamper.request)(&mut request);
    }
    // The body has lost its own framing on the way here.
    request
        .headers
        .0
        .retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
    connection
        .write(&request.encode(&service.to_string()))
        .await
        .ok()?;
    let mut head = connection.read_head().await.ok()??;
    let mut body = connection.read_body().await.ok()?;
    if let Some(tamper) = tamper {
        (tamper.answer)(&request.target, &mut body);
    }
    head.headers.0.retain(|(name, _)| {
        !["transfer-encoding", "content-length", "connection"]
            .iter()
            .any(|framing| name.eq_ignore_ascii_case(framing))
    });
    head.headers
        .0
        .push(("content-length".into(), body.len().to_string()));
    Some([encode_head(head.status, &head.headers), body].concat())
}
