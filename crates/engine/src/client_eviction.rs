//! `maxmemory-clients`: connections end when all of them together hold too much memory, the ones that hold most first.
//!
//! Invariant: who asked for `CLIENT NO-EVICT` stays, though what it holds counts. Deliberately absent: when this is looked
//! at, which is the owner's; between two looks the clients may hold more.

use std::sync::Arc;

use crate::client::{Client, ClientFlag};
use crate::engine::Engine;

/// No limit is lower than this, so that an administrator can always connect. Default: 128 KB, as in Redis.
const LOWEST_LIMIT: u64 = 128 * 1024;

impl Engine {
    /// Ends connections until all that are left hold less than `maxmemory-clients` together; how many it ended. To be called
    /// several times a second. Costs nothing without a limit.
    pub fn evict_clients(&self) -> usize {
        let Some(limit) = self.client_limit() else { return 0 };
        let mut clients: Vec<(u64, Arc<Client>)> = self
            .registry
            .all()
            .into_iter()
            .filter(|client| !client.is_killed())
            .map(|client| (client.memory(), client))
            .collect();
        let mut held: u64 = clients.iter().map(|(memory, _)| memory).sum();
        if held < limit {
            return 0;
        }
        clients.retain(|(_, client)| !client.has(ClientFlag::NoEvict));
        clients.sort_by_key(|(memory, _)| *memory);
        let mut ended = 0;
        while held >= limit
            && let Some((memory, client)) = clients.pop()
        {
            client.kill();
            self.stats.client_evicted();
            held -= memory;
            ended += 1;
        }
        ended
    }

    /// The bytes that all clients may hold; `None` for any number.
    fn client_limit(&self) -> Option<u64> {
        let limit = match self.settings.maxmemory_clients() {
            // A share of `maxmemory`, in percent.
            share @ ..0 => u128::from(self.settings.maxmemory()) * u128::from(share.unsigned_abs()) / 100,
            bytes => u128::from(bytes.unsigned_abs()),
        };
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        (limit > 0).then(|| limit.max(LOWEST_LIMIT))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Rig;

    fn limit(rig: &Rig, name: &str, value: &str) {
        rig.engine.set_config(&[name.as_bytes(), value.as_bytes()]).unwrap();
    }

    /// Sessions that have sent so many kilobytes of a command each.
    fn holding(rig: &Rig, kilobytes: &[usize]) -> Vec<Rig> {
        let hold = |&kilobytes: &usize| {
            let other = rig.another();
            other.session.client.set_input(kilobytes * 1024, 0);
            other
        };
        kilobytes.iter().map(hold).collect()
    }

    fn ended(rigs: &[Rig]) -> Vec<bool> {
        rigs.iter().map(|rig| rig.session.client.is_killed()).collect()
    }

    #[test]
    fn those_that_hold_most_go_until_there_is_room() {
        let rig = Rig::new();
        let others = holding(&rig, &[100, 800, 50, 300]);
        assert_eq!(rig.engine.evict_clients(), 0, "there is no limit by default");
        limit(&rig, "maxmemory-clients", "400kb");
        assert_eq!(rig.engine.evict_clients(), 2);
        assert_eq!(ended(&others), [false, true, false, true]);
        assert_eq!(rig.engine.evict_clients(), 0, "those that are on their way out count no more");
        assert_eq!(rig.engine.totals().evicted_clients, 2);
    }

    #[test]
    fn who_asked_for_no_evict_stays_and_counts() {
        let rig = Rig::new();
        let mut others = holding(&rig, &[800, 100, 50]);
        others[0].run("client no-evict on");
        limit(&rig, "maxmemory-clients", "500kb");
        assert_eq!(rig.engine.evict_clients(), 3);
        assert_eq!(ended(&others), [false, true, true]);
    }

    #[test]
    fn a_share_is_of_maxmemory_and_none_without_it() {
        let rig = Rig::new();
        let others = holding(&rig, &[3000]);
        limit(&rig, "maxmemory-clients", "10%");
        limit(&rig, "maxmemory", "0");
        assert_eq!(rig.engine.evict_clients(), 0);
        limit(&rig, "maxmemory", "100mb");
        assert_eq!(rig.engine.evict_clients(), 0);
        limit(&rig, "maxmemory", "20mb");
        assert_eq!(rig.engine.evict_clients(), 1);
        assert_eq!(ended(&others), [true]);
    }

    #[test]
    fn what_waits_in_a_transaction_counts_and_small_limits_are_raised() {
        let mut rig = Rig::new();
        limit(&rig, "maxmemory-clients", "1");
        assert_eq!(rig.engine.evict_clients(), 0);
        rig.run("multi");
        for _ in 0..20 {
            rig.run(&format!("set k {}", "x".repeat(10_000)));
        }
        assert!(rig.run("client info").contains("QUEUED"));
        assert_eq!(rig.engine.evict_clients(), 1);
    }
}
