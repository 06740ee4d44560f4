//! Who is asked for how often: by Zipf's law the item of rank n gets 1/n of the first one's requests.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// Items in order of popularity.
#[derive(Clone, Debug)]
pub(crate) struct Popularity<T> {
    items: Vec<T>,
    /// The weights of all items up to and including each.
    cumulative: Vec<f64>,
}

impl<T> Popularity<T> {
    /// Items with the most popular one first; nothing for no items.
    pub(crate) fn new(items: Vec<T>) -> Option<Self> {
        let mut sum = 0.0;
        let cumulative: Vec<f64> = (1..=items.len())
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        (!items.is_empty()).then_some(Self { items, cumulative })
    }

    /// One item, the popular ones more often.
    pub(crate) fn pick(&self, random: &mut StdRng) -> &T {
        let whole = self.cumulative.last().copied().unwrap_or(1.0);
        let at = random.random_range(0.0..whole);
        let place = self.cumulative.partition_point(|sum| *sum <= at);
        &self.items[place.min(self.items.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn first_item_is_picked_about_twice_as_often_as_the_second() {
        let popularity = Popularity::new(vec![0usize, 1, 2]).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = [0u32; 3];
        for _ in 0..11_000 {
            counts[*popularity.pick(&mut random)] += 1;
        }
        // Of 11 parts: 6, 3 and 2.
        for (count, expected) in counts.into_iter().zip([6000i64, 3000, 2000]) {
            assert!((i64::from(count) - expected).abs() < 300, "{counts:?}");
        }
        assert!(Popularity::new(Vec::<u8>::new()).is_none());
    }
}
