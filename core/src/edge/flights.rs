//! Identical classifications in flight on one worker share a callout.
//!
//! Whoever follows a flight keeps all it needs to ask for itself until the answer is there, and
//! looks for it when its own response begins: nobody has to be woken, and a leader may fail or go
//! away.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
};

use crate::{
    ledger::Fingerprint,
    prefix_hash::PrefixHash,
    wire::{Classified, ClassifyRequest},
};

/// The prompt of a request that may still have to send it. Whoever makes it empty frees it.
pub type Prompt = Rc<Cell<Vec<u8>>>;

/// A classification that was asked for.
#[derive(Debug)]
pub struct Flight {
    request: ClassifyRequest,
    landed: OnceCell<Landed>,
    /// Those of the followers.
    prompts: RefCell<Vec<Weak<Cell<Vec<u8>>>>>,
}

/// How a flight ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// The service's answer.
    pub classified: Classified,
    /// When it came.
    pub at_ms: u64,
}

impl Flight {
    /// What was asked.
    #[must_use]
    pub const fn request(&self) -> &ClassifyRequest {
        &self.request
    }

    /// The answer is there, for those who follow; they need their prompts no longer. The first
    /// answer counts.
    pub fn land(self: &Rc<Self>, classified: &Classified, at_ms: u64) {
        if Rc::strong_count(self) == 1 {
            return;
        }
        self.landed.get_or_init(|| Landed {
            classified: Classified {
                // Of the leader's whole prompt: followers share its prefix, not what is behind.
                counted_prompt_tokens: None,
                ..classified.clone()
            },
            at_ms,
        });
        for prompt in self.prompts.take().iter().filter_map(Weak::upgrade) {
            prompt.take();
        }
    }

    /// The answer, for one who follows.
    #[must_use]
    pub fn landed(&self) -> Option<&Landed> {
        self.landed.get()
    }
}

/// Where a request stands in its flight.
#[derive(Debug)]
pub enum Seat {
    /// Nobody asked this: ask.
    Leader(Rc<Flight>),
    /// Somebody asked the same.
    Follower(Rc<Flight>),
}

/// The flights in the air: as many as there are leaders, at most one per stream.
#[derive(Debug, Default)]
pub struct Flights(HashMap<Key, Weak<Flight>>);

/// Who asks, and the deepest prefix.
type Key = (Fingerprint, PrefixHash);

impl Flights {
    /// Follows the flight of an identical request, or leads a new one until it is
    /// [`over`](Self::over).
    pub fn join(&mut self, request: ClassifyRequest, prompt: &Prompt) -> Seat {
        let key = key(&request);
        let ahead = key.and_then(|key| self.0.get(&key)?.upgrade());
        match ahead {
            Some(flight) if flight.request == request => {
                flight.prompts.borrow_mut().push(Rc::downgrade(prompt));
                return Seat::Follower(flight);
            }
            Some(_) | None => {}
        }
        let flight = Rc::new(Flight {
            request,
            landed: OnceCell::new(),
            prompts: RefCell::default(),
        });
        if let Some(key) = key {
            self.0.insert(key, Rc::downgrade(&flight));
        }
        Seat::Leader(flight)
    }

    /// The flight has landed, or its leader will not bring an answer.
    pub fn over(&mut self, flight: &Rc<Flight>) {
        let Some(key) = key(&flight.request) else {
            return;
        };
        let weak = self.0.get(&key);
        if weak.is_some_and(|weak| std::ptr::eq(weak.as_ptr(), Rc::as_ptr(flight))) {
            self.0.remove(&key);
        }
    }
}

fn key(request: &ClassifyRequest) -> Option<Key> {
    let deepest = request.candidates.last()?;
    Some((request.principal, deepest.hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{Breakpoint, Candidate, Fingerprint, Tier},
        wire::WIRE_VERSION,
    };

    fn request(principal: u8, hash: u8) -> ClassifyRequest {
        ClassifyRequest {
            v: WIRE_VERSION,
            api: crate::api::Api::Chat,
            principal: Fingerprint::of(&[principal], b"who").unwrap(),
            model: "m".to_owned(),
            breakpoints: vec![Breakpoint {
                block: 3,
                tier: Tier::FiveMinutes,
            }],
            candidates: vec![Candidate {
                block: 3,
                hash: PrefixHash::from_hex(&format!("{hash:064x}")).unwrap(),
            }],
        }
    }

    fn join(flights: &mut Flights, request: ClassifyRequest) -> Seat {
        flights.join(request, &Prompt::default())
    }

    fn leader(seat: Seat) -> Rc<Flight> {
        match seat {
            Seat::Leader(flight) => flight,
            Seat::Follower(_) => panic!("follows"),
        }
    }

    fn follower(seat: Seat) -> Rc<Flight> {
        match seat {
            Seat::Follower(flight) => flight,
            Seat::Leader(_) => panic!("leads"),
        }
    }

    #[test]
    fn only_the_same_request_follows() {
        let mut flights = Flights::default();
        let first = leader(join(&mut flights, request(1, 1)));
        let second = follower(join(&mut flights, request(1, 1)));
        assert!(Rc::ptr_eq(&first, &second));
        // Another tenant's, which displaces nobody; another prefix; another tier.
        let _other = leader(join(&mut flights, request(2, 1)));
        follower(join(&mut flights, request(1, 1)));
        leader(join(&mut flights, request(1, 3)));
        let mut longer = request(1, 1);
        longer.breakpoints[0].tier = Tier::OneHour;
        leader(join(&mut flights, longer));
    }

    #[test]
    fn a_flight_that_is_over_has_no_new_followers() {
        let mut flights = Flights::default();
        let first = leader(join(&mut flights, request(1, 1)));
        flights.over(&first);
        let next = leader(join(&mut flights, request(1, 1)));
        // The first one's end is not the second one's.
        flights.over(&first);
        follower(join(&mut flights, request(1, 1)));
        flights.over(&next);
        assert!(flights.0.is_empty());
    }

    #[test]
    fn the_first_answer_counts_and_tells_nothing_of_the_leaders_prompt() {
        let flight = leader(join(&mut Flights::default(), request(1, 1)));
        let _follower = Rc::clone(&flight);
        assert_eq!(flight.landed(), None);
        let classified = |version: &str| Classified {
            tokenizer_version: version.to_owned(),
            counted_prompt_tokens: Some(7),
            ..Classified::default()
        };
        flight.land(&classified("a"), 5);
        flight.land(&classified("b"), 6);
        let landed = flight.landed().unwrap();
        assert_eq!(landed.classified.tokenizer_version, "a");
        assert_eq!(landed.classified.counted_prompt_tokens, None);
        assert_eq!(landed.at_ms, 5);
    }

    #[test]
    fn who_follows_keeps_its_prompt_until_the_answer_is_there() {
        let mut flights = Flights::default();
        let prompts: [Prompt; 3] = std::array::from_fn(|_| Prompt::new(Cell::new(vec![1; 100])));
        let [leads, follows, gone] = &prompts;
        let flight = leader(flights.join(request(1, 1), leads));
        let _follower = follower(flights.join(request(1, 1), follows));
        follower(flights.join(request(1, 1), gone));
        assert_eq!(gone.take().len(), 100);
        flight.land(&Classified::default(), 5);
        assert!(follows.take().is_empty());
        // The leader's is its own to send or to drop.
        assert_eq!(leads.take().len(), 100);
    }
}
