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

/// Several different keys on their flights, as one caller waits for them.
pub(crate) struct Group<'a, L> {
    flights: &'a Flights,
    keys: &'a [String],
    demand: Demand,
    max_batch: usize,
    load: L,
    open: Vec<Open>,
    aboard: Vec<(Open, Part, Arc<Flight>)>,
    /// Of each key, the flight that it is aboard.
    present: Vec<Option<Arc<Flight>>>,
    arrived: Vec<Option<Arrived>>,
}

/// How a key's flights have ended, as [`Flights::fly`] says it.
pub(crate) type Arrived = (Part, Option<Result<Landed, Error>>);

/// A key that is to board a flight.
struct Open {
    key: usize,
    /// The flight that would not do, if there was one.
    ended: Option<Arc<Flight>>,
    waited: usize,
    panics: usize,
}

impl Flights {
    /// As [`fly`](Self::fly), for several different keys: joins the flights that are under way, and starts loads for the rest, each for at
    /// most `max_batch` keys, which `load` is given as places in `keys`. They begin when they are waited for.
    pub(crate) fn group<'a, L>(
        &'a self,
        keys: &'a [String],
        demand: Demand,
        max_batch: usize,
        load: L,
    ) -> Group<'a, L>
    where
        L: Fn(Vec<usize>, Landing) -> LoadManyFuture,
    {
        let open = |key| Open { key, ended: None, waited: 0, panics: 0 };
        Group {
            flights: self,
            keys,
            demand,
            max_batch,
            load,
            open: (0..keys.len()).map(open).collect(),
            aboard: Vec::new(),
            present: keys.iter().map(|_| None).collect(),
            arrived: keys.iter().map(|_| None).collect(),
        }
    }

    /// As [`depart`](Self::depart), for several keys; says how many loads that makes.
    pub(crate) fn depart_many(
        &self,
        keys: &[String],
        max_batch: usize,
        load: impl Fn(Vec<usize>, Landing) -> LoadManyFuture,
    ) -> usize {
        let mut led = Vec::new();
        {
            let mut by_key = self.by_key.lock();
            for (place, key) in keys.iter().enumerate() {
                if !by_key.contains_key(key) {
                    let (flight, seat) = self.seat(key, Kind::First);
                    by_key.insert(key.clone(), flight);
                    led.push((place, seat));
                }
            }
        }
        begin(led, max_batch, &load)
    }
}

impl<L: Fn(Vec<usize>, Landing) -> LoadManyFuture> Group<'_, L> {
    /// Until all have arrived that are awaited. What has arrived stays so, should this be dropped before.
    pub(crate) async fn wait_for(&mut self, is_awaited: impl Fn(usize) -> bool) {
        loop {
            self.board();
            let mut next = 0;
            while let Some((wants, _, flight)) = self.aboard.get(next) {
                if is_awaited(wants.key) {
                    let ending = flight.ending().await;
                    self.ended(next, ending);
                } else {
                    next += 1;
                }
            }
            if self.open.is_empty() {
                return;
            }
        }
    }

    /// Sees who has arrived without having been waited for.
    pub(crate) fn look_around(&mut self) {
        let mut next = 0;
        while let Some((_, _, flight)) = self.aboard.get(next) {
            match flight.ending().now_or_never() {
                Some(ending) => self.ended(next, ending),
                None => next += 1,
            }
        }
    }

    /// What came of the key at this place, if it has arrived.
    pub(crate) fn arrived(&self, place: usize) -> Option<&Arrived> {
        self.arrived.get(place)?.as_ref()
    }

    /// Whether the flight of the key at this place is one that others would join: not once its key was set or invalidated here.
    pub(crate) fn is_joinable(&self, place: usize) -> bool {
        let (Some(key), Some(Some(flight))) = (self.keys.get(place), self.present.get(place)) else {
            return false;
        };
        self.flights.by_key.lock().get(key).is_some_and(|present| Arc::ptr_eq(present, flight))
    }

    /// A flight for each key that has none, under way when this returns.
    fn board(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        open.sort_unstable_by_key(|wants| wants.key);
        let led = RefCell::new(Vec::new());
        for wants in open {
            let place = wants.key;
            let Some(key) = self.keys.get(place) else { continue };
            let mut prepare = |kind: Kind| {
                let (flight, seat) = self.flights.seat(key, kind);
                Some((flight, || led.borrow_mut().push((place, seat))))
            };
            let flight = match &wants.ended {
                None => self.flights.board(key, self.demand, &mut prepare),
                Some(ended) if wants.waited + 1 < MAX_FLIGHTS => {
                    self.flights.board_next(key, ended, &mut prepare)
                }
                Some(_) => self.flights.lead(key, &mut prepare),
            };
            if let (Some((part, flight)), Some(present)) = (flight, self.present.get_mut(place)) {
                *present = Some(Arc::clone(&flight));
                self.aboard.push((wants, part, flight));
            }
        }
        begin(led.into_inner(), self.max_batch, &self.load);
    }

    /// The key of this place aboard has arrived, or takes its next flight.
    fn ended(&mut self, place: usize, ending: Ending) {
        let (mut wants, part, flight) = self.aboard.swap_remove(place);
        if let Some(present) = self.present.get_mut(wants.key) {
            *present = None;
        }
        let arrived = match ending {
            Ending::Landed(Ok(landed))
                if part == Part::Joined && !self.demand.is_met_by(&landed, flight.began) =>
            {
                None
            }
            Ending::Landed(landed) => Some((part, Some(landed))),
            Ending::Panicked => {
                wants.panics += 1;
                (part == Part::Led || wants.panics == MAX_PANICS).then_some((part, None))
            }
        };
        if arrived.is_none() {
            self.open.push(Open { ended: Some(flight), waited: wants.waited + 1, ..wants });
        } else if let Some(place) = self.arrived.get_mut(wants.key) {
            *place = arrived;
        }
    }
}

/// Has loads begin for those who lead; says how many.
fn begin(
    mut led: Vec<(usize, Seat)>,
    max_batch: usize,
    load: &impl Fn(Vec<usize>, Landing) -> LoadManyFuture,
) -> usize {
    let mut loads = 0;
    while !led.is_empty() {
        let rest = led.split_off(led.len().min(max_batch.max(1)));
        let (places, seats): (Vec<_>, Vec<_>) = led.into_iter().unzip();
        let load = load(places, Landing::new(seats));
        tokio::spawn(async move {
            // A load that panics takes its landing with it.
            let _ = AssertUnwindSafe(load).catch_unwind().await;
        });
        loads += 1;
        led = rest;
    }
    loads
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::super::{Age, Currency, NoneIs, ReadOptions, Source};
    use super::*;

    #[tokio::test]
    async fn a_flight_is_joinable_until_its_key_is_detached_or_it_has_landed() {
        let (flights, keys) = (Flights::default(), ["a", "b", "c"].map(str::to_owned));
        let lands = Arc::new(Notify::new());
        let load = |places: Vec<usize>, landing: Landing| -> LoadManyFuture {
            let told = Arc::clone(&lands);
            Box::pin(async move {
                told.notified().await;
                let value = || Landed::now([1], Source::Loader, Age::Unknown, Currency::Current);
                (0..places.len()).for_each(|place| landing.land(place, Ok(value())));
            })
        };
        let demand = Demand::now(ReadOptions::new(), NoneIs::AnAnswer);
        let mut group = flights.group(&keys, demand, 2, load);
        let joinable = |group: &Group<'_, _>| [0, 1, 2].map(|place| group.is_joinable(place));
        assert_eq!(joinable(&group), [false; 3]);
        assert!(Box::pin(group.wait_for(|_| true)).now_or_never().is_none());
        assert_eq!(joinable(&group), [true; 3]);
        flights.detach("b");
        assert_eq!(joinable(&group), [true, false, true]);
        lands.notify_one();
        group.wait_for(|place| place < 2).await;
        assert_eq!(joinable(&group), [false, false, true]);
    }
}
