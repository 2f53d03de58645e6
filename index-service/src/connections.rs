//! Open connections, up to a cap. When all seats are taken, whoever says nothing gives way to who
//! comes: otherwise a few thousand silent connections would keep the filter out.
//!
//! A connection is *busy* while a request is answered, and quiet otherwise, a request's head on its
//! way included. Of the quiet ones those go first that have never brought a request, then those that
//! have been quiet for longest.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tower_service::Service;

/// A connection that has been quiet for less than this keeps its seat: its request may be on the way.
const QUIET_MS_MIN: u64 = 500;
/// Longest time to the end of a connection's first head. Whoever connects has something to say.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The seats.
pub struct Connections {
    seats_max: usize,
    start: Instant,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    seats: HashMap<u64, Arc<Seat>>,
    next: u64,
}

/// What is known of one connection.
#[derive(Default)]
pub struct Seat {
    busy: AtomicUsize,
    used: AtomicBool,
    quiet_since_ms: AtomicU64,
    leave: Notify,
}

/// A seat that is taken, given back when it is dropped.
pub struct Guest {
    connections: Arc<Connections>,
    number: u64,
    seat: Arc<Seat>,
}

/// Who got a seat, and at whose cost.
pub enum Admission {
    /// One was free.
    Free(Guest),
    /// A quiet connection leaves for it.
    InPlace(Guest),
    /// All are busy, or have just come.
    Full,
}

impl Connections {
    /// Seats for so many.
    pub fn new(seats_max: usize) -> Arc<Self> {
        Arc::new(Self {
            seats_max,
            start: Instant::now(),
            taken: Mutex::default(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A seat for a new connection.
    pub fn admit(self: &Arc<Self>) -> Admission {
        self.admit_at(self.now_ms())
    }

    fn admit_at(self: &Arc<Self>, now_ms: u64) -> Admission {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = taken.seats.len() >= self.seats_max;
        if full {
            let Some(number) = taken.quietest(now_ms) else {
                return Admission::Full;
            };
            if let Some(seat) = taken.seats.remove(&number) {
                seat.leave.notify_one();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat {
            quiet_since_ms: AtomicU64::new(now_ms),
            ..Seat::default()
        });
        taken.seats.insert(number, Arc::clone(&seat));
        drop(taken);
        let guest = Guest {
            connections: Arc::clone(self),
            number,
            seat,
        };
        if full {
            Admission::InPlace(guest)
        } else {
            Admission::Free(guest)
        }
    }
}

impl Taken {
    /// Who gives way.
    fn quietest(&self, now_ms: u64) -> Option<u64> {
        let quiet = self.seats.iter().filter_map(|(number, seat)| {
            let since_ms = seat.quiet_since_ms.load(Ordering::Acquire);
            let quiet = seat.busy.load(Ordering::Acquire) == 0
                && now_ms.saturating_sub(since_ms) >= QUIET_MS_MIN;
            quiet.then(|| (seat.used.load(Ordering::Acquire), since_ms, *number))
        });
        quiet.min().map(|(_, _, number)| number)
    }
}

impl Guest {
    /// Resolves when the connection has to end: another one gets its seat, or its first request
    /// does not come.
    pub async fn has_to_leave(&self) {
        let unused = async {
            tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
            if self.seat.used.load(Ordering::Acquire) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.seat.leave.notified() => {}
            () = unused => {}
        }
    }

    /// `inner`, which is busy while it answers.
    pub fn watch<S>(&self, inner: S) -> Watched<S> {
        Watched {
            inner,
            connections: Arc::clone(&self.connections),
            seat: Arc::clone(&self.seat),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut taken = self
            .connections
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.seats.remove(&self.number);
    }
}

/// A service of one connection.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    connections: Arc<Connections>,
    seat: Arc<Seat>,
}

/// A request that is being answered.
struct Busy(Arc<Connections>, Arc<Seat>);

impl Busy {
    fn new(connections: &Arc<Connections>, seat: &Arc<Seat>) -> Self {
        seat.busy.fetch_add(1, Ordering::AcqRel);
        seat.used.store(true, Ordering::Release);
        Self(Arc::clone(connections), Arc::clone(seat))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Self(connections, seat) = self;
        seat.quiet_since_ms
            .store(connections.now_ms(), Ordering::Release);
        seat.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let busy = Busy::new(&self.connections, &self.seat);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let _busy = busy;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(admission: Admission) -> Guest {
        match admission {
            Admission::Free(guest) | Admission::InPlace(guest) => guest,
            Admission::Full => panic!("full"),
        }
    }

    fn is_here(guest: &Guest) -> bool {
        let taken = guest.connections.taken.lock().unwrap();
        taken.seats.contains_key(&guest.number)
    }

    #[test]
    fn who_gives_way() {
        let connections = Connections::new(4);
        let [busy, used, silent, late] =
            [0, 0, 100, 400].map(|ms| seated(connections.admit_at(ms)));
        let at_work = Busy::new(&connections, &busy.seat);
        drop(Busy::new(&connections, &used.seat));
        used.seat.quiet_since_ms.store(50, Ordering::Release);
        let admit_at = |ms| connections.admit_at(ms);
        assert!(
            matches!(admit_at(549), Admission::Full),
            "the quiet may still speak"
        );
        // Who never said anything goes before who has been quiet for longer.
        let first = seated(admit_at(1_000));
        assert!(!is_here(&silent) && is_here(&late) && is_here(&used));
        let second = seated(admit_at(1_000));
        assert!(!is_here(&late) && is_here(&used));
        // Those who just came keep their seats.
        let third = seated(admit_at(1_000));
        assert!(!is_here(&used) && is_here(&first) && is_here(&second));
        assert!(matches!(admit_at(1_499), Admission::Full));
        drop(third);
        assert!(matches!(admit_at(1_499), Admission::Free(_)));
        assert!(is_here(&busy), "it is busy");
        drop(at_work);
    }

    #[test]
    fn a_seat_that_was_given_away_is_not_given_back_twice() {
        let connections = Connections::new(1);
        let first = seated(connections.admit_at(0));
        let second = seated(connections.admit_at(QUIET_MS_MIN));
        drop(first);
        assert!(is_here(&second));
        assert!(matches!(
            connections.admit_at(QUIET_MS_MIN),
            Admission::Full
        ));
    }
}
