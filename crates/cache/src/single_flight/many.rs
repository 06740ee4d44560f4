//! Flights of several keys: one load for all of a batch that nobody loads yet, and the flights of others for the rest.
//!
//! Invariant: to all others each key of a batch is a flight like any other, which they join, follow and detach alone. Deliberately
//! absent: what a batch's load does (`batch.rs`).

use std::cell::RefCell;

use super::{
    Arc, AssertUnwindSafe, Demand, Ending, Error, Flight, Flights, FutureExt, Kind, Landed, MAX_FLIGHTS,
    MAX_PANICS, Mutex, Part, Pin, Seat,
};

/// One load for several keys, which lands each as soon as it is known.
pub(crate) type LoadManyFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the answers of one load for several keys go. Those that have not landed when this is dropped have panicked, as far as their
/// waiters can tell.
pub(crate) struct Landing(Mutex<Vec<Option<Seat>>>);

impl Landing {
    fn new(seats: Vec<Seat>) -> Self {
        Self(Mutex::new(seats.into_iter().map(Some).collect()))
    }

    /// Ends the flight of the key at this place of the load.
    pub(crate) fn land(&self, place: usize, landed: Result<Landed, Error>) {
        let seat = self.0.lock().get_mut(place).and_then(Option::take);
        if let Some(seat) = seat {
            seat.end(Ending::Landed(landed));
        }
    }

    /// The same for a key whose load has panicked.
    pub(crate) fn panicked(&self, place: usize) {
        let seat = self.0.lock().get_mut(place).and_then(Option::take);
        if let Some(seat) = seat {
            seat.end(Ending::Panicked);
        }
    }
}

/// A key that has no answer yet.
struct Open {
    key: usize,
    /// The flight that would not do, if there was one.
    ended: Option<Arc<Flight>>,
    panics: usize,
}

impl Flights {
    /// As [`fly`](Self::fly), for several different keys: joins the flights that are under way, and starts loads for the rest, each for at
    /// most `max_batch` keys, which `load` is given as places in `keys`.
    pub(crate) async fn fly_many(
        &self,
        keys: &[String],
        demand: Demand,
        max_batch: usize,
        load: impl Fn(Vec<usize>, Landing) -> LoadManyFuture,
    ) -> Vec<(Part, Option<Result<Landed, Error>>)> {
        let mut answers: Vec<_> = keys.iter().map(|_| (Part::Joined, None)).collect();
        let mut open: Vec<_> = (0..keys.len()).map(|key| Open { key, ended: None, panics: 0 }).collect();
        for round in 1..=MAX_FLIGHTS {
            let boarded = self.board_many(keys, open, demand, round, max_batch, &load);
            open = Vec::new();
            for (mut wants, part, flight) in boarded {
                match flight.ending().await {
                    Ending::Landed(Ok(landed))
                        if part == Part::Joined && !demand.is_met_by(&landed, flight.began) => {}
                    Ending::Landed(landed) => {
                        answers[wants.key] = (part, Some(landed));
                        continue;
                    }
                    Ending::Panicked => {
                        wants.panics += 1;
                        if part == Part::Led || wants.panics == MAX_PANICS {
                            answers[wants.key] = (part, None);
                            continue;
                        }
                    }
                }
                wants.ended = Some(flight);
                open.push(wants);
            }
            if open.is_empty() {
                break;
            }
        }
        answers
    }

    /// A flight for each key, under way when this returns.
    fn board_many(
        &self,
        keys: &[String],
        open: Vec<Open>,
        demand: Demand,
        round: usize,
        max_batch: usize,
        load: &impl Fn(Vec<usize>, Landing) -> LoadManyFuture,
    ) -> Vec<(Open, Part, Arc<Flight>)> {
        let led = RefCell::new(Vec::new());
        let mut boarded = Vec::with_capacity(open.len());
        for wants in open {
            let place = wants.key;
            let Some(key) = keys.get(place) else { continue };
            let mut prepare = |kind: Kind| {
                let (flight, seat) = self.seat(key, kind);
                Some((flight, || led.borrow_mut().push((place, seat))))
            };
            let flight = match &wants.ended {
                None => self.board(key, demand, &mut prepare),
                Some(ended) if round < MAX_FLIGHTS => self.board_next(key, ended, &mut prepare),
                Some(_) => self.lead(key, &mut prepare),
            };
            if let Some((part, flight)) = flight {
                boarded.push((wants, part, flight));
            }
        }
        let mut led = led.into_inner();
        while !led.is_empty() {
            let rest = led.split_off(led.len().min(max_batch.max(1)));
            begin(led, load);
            led = rest;
        }
        boarded
    }
}

fn begin(led: Vec<(usize, Seat)>, load: &impl Fn(Vec<usize>, Landing) -> LoadManyFuture) {
    let (places, seats): (Vec<_>, Vec<_>) = led.into_iter().unzip();
    let load = load(places, Landing::new(seats));
    tokio::spawn(async move {
        // A load that panics takes its landing with it.
        let _ = AssertUnwindSafe(load).catch_unwind().await;
    });
}
