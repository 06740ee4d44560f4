//! What is asked about, and what is served stale. A response that says `Age: 100` is old at once, so that nothing has to be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::rig::{Client, Count, Rig, eventually, on_both_backends, serve};

on_both_backends! {
    what_must_be_asked_about_is_asked_about_and_not_sent_again,
    a_client_that_has_it_is_told_so,
    a_changed_response_replaces_the_one_that_was_asked_about,
    a_client_can_demand_more_than_the_response_does,
    a_client_cannot_have_the_service_asked_more_often_than_the_interval,
    what_is_not_to_be_stored_is_answered_from_the_store,
    what_is_stale_is_served_while_it_is_refreshed,
    what_is_stale_stands_in_for_an_error_where_it_may,
    without_a_stale_window_nothing_stale_is_served,
}

#[derive(Clone)]
struct Service {
    asked: Count,
    confirmed: Count,
    fails: Arc<AtomicBool>,
    changed: Arc<AtomicBool>,
    control: &'static str,
}

impl Service {
    fn new(control: &'static str) -> Self {
        let (fails, changed) = Default::default();
        Self { asked: Count::default(), confirmed: Count::default(), fails, changed, control }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        self.asked.up();
        if self.fails.load(Ordering::SeqCst) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let tag = if self.changed.load(Ordering::SeqCst) { "\"2\"" } else { "\"1\"" };
        let terms = [("cache-control", self.control), ("etag", tag), ("age", "100")];
        if headers.get("if-none-match").is_some_and(|has| has == tag) {
            self.confirmed.up();
            return (StatusCode::NOT_MODIFIED, terms).into_response();
        }
        (terms, format!("version {tag}")).into_response()
    }

    async fn behind(&self, responses: mtcache_http::HttpCache) -> Client {
        let service = self.clone();
        let handler = move |headers: HeaderMap| async move { service.answer(&headers) };
        serve(Router::new().route("/a", get(handler)).layer(responses.layer())).await
    }
}

async fn what_must_be_asked_about_is_asked_about_and_not_sent_again(rig: Rig) {
    let service = Service::new("no-cache");
    let client = service.behind(rig.responses()).await;
    for n in 0..3 {
        let answer = client.get("/a").await;
        assert_eq!((answer.status, answer.text()), (200, "version \"1\""));
        assert!(!answer.is_hit());
        assert_eq!((service.asked.now(), service.confirmed.now()), (n + 1, n));
    }
}

async fn a_client_that_has_it_is_told_so(rig: Rig) {
    let service = Service::new("max-age=200");
    let client = service.behind(rig.responses()).await;
    let has_it = &[("if-none-match", "\"0\", W/\"1\"")];
    // Also the first time: the response is stored whole, and the client's question is answered from it.
    for hit in [false, true] {
        let answer = client.get_with("/a", has_it).await;
        assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, "\"1\""));
        assert_eq!(answer.is_hit(), hit);
        assert!(answer.header("age").parse::<u64>().unwrap() >= 100);
    }
    assert_eq!(client.get("/a").await.text(), "version \"1\"");
    assert_eq!(client.get_with("/a", &[("if-none-match", "\"2\"")]).await.status, 200);
    assert_eq!((service.asked.now(), service.confirmed.now()), (1, 0));
}

async fn a_changed_response_replaces_the_one_that_was_asked_about(rig: Rig) {
    let service = Service::new("no-cache");
    let client = service.behind(rig.responses()).await;
    client.get("/a").await;
    service.changed.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/a").await.text(), "version \"2\"");
    assert_eq!(client.get_with("/a", &[("if-none-match", "\"1\"")]).await.text(), "version \"2\"");
    assert_eq!(service.confirmed.now(), 1, "the second question was about the second version");
}

async fn a_client_can_demand_more_than_the_response_does(rig: Rig) {
    let service = Service::new("max-age=200");
    let client = service.behind(rig.responses().reload_interval(Duration::ZERO)).await;
    let only_if_cached = ("cache-control", "only-if-cached");
    assert_eq!(client.get_with("/a", &[only_if_cached]).await.status, 504);
    assert_eq!(service.asked.now(), 0);
    client.get("/a").await;
    assert!(client.get_with("/a", &[only_if_cached]).await.is_hit());
    for (demand, hit) in [
        ("max-age=150", true),
        ("max-age=50", false),
        ("min-fresh=50", true),
        ("min-fresh=150", false),
        ("no-cache", false),
        ("max-age=0", false),
    ] {
        let answer = client.get_with("/a", &[("cache-control", demand)]).await;
        assert_eq!((answer.status, answer.is_hit()), (200, hit), "{demand}: {}", answer.came_by());
    }
    assert_eq!(service.confirmed.now(), 4);
}

/// However its wish is put. One that the response itself has is heeded.
async fn a_client_cannot_have_the_service_asked_more_often_than_the_interval(rig: Rig) {
    let service = Service::new("max-age=200");
    let responses = rig.responses();
    let (never, client) = (
        service.behind(responses.clone().reload_interval(Duration::MAX)).await,
        service.behind(responses.clone()).await,
    );
    never.get("/a").await;
    let wishes = [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "min-fresh=150"),
        ("pragma", "no-cache"),
    ];
    for wish in wishes {
        let answer = never.get_with("/a", &[wish]).await;
        assert!(answer.is_hit(), "{wish:?}: {}", answer.came_by());
    }
    assert_eq!(service.asked.now(), 1);
    // Each reload is new enough for all who ask for one within the second that follows.
    let began = Instant::now();
    for n in 0..60 {
        assert_eq!(client.get_with("/a", &[wishes[n % wishes.len()]]).await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = began.elapsed().as_secs();
    let asked = service.asked.now() - 1;
    assert!((1..=seconds + 1).contains(&asked), "{asked} in {seconds} s");

    let strict = Service::new("no-cache");
    let client = strict.behind(responses).await;
    rig.responses().invalidate_all().await.unwrap();
    for n in 1..4 {
        client.get("/a").await;
        assert_eq!(strict.asked.now(), n);
    }
}

async fn what_is_not_to_be_stored_is_answered_from_the_store(rig: Rig) {
    let service = Service::new("max-age=200");
    let client = service.behind(rig.responses()).await;
    let no_store = ("cache-control", "no-store");
    for n in 1..3 {
        assert_eq!(client.get_with("/a", &[no_store]).await.came_by(), "fwd=request");
        assert_eq!(service.asked.now(), n, "it was not stored");
    }
    client.get("/a").await;
    assert!(client.get_with("/a", &[no_store]).await.is_hit());
    assert_eq!(client.get_with("/b", &[("cache-control", "no-store, only-if-cached")]).await.status, 504);
    assert_eq!(service.asked.now(), 3);
}

async fn what_is_stale_is_served_while_it_is_refreshed(rig: Rig) {
    let service = Service::new("max-age=60, stale-while-revalidate=600");
    let client = service.behind(rig.responses()).await;
    client.get("/a").await;
    service.changed.store(true, Ordering::SeqCst);
    let stale = client.get("/a").await;
    assert_eq!(stale.text(), "version \"1\"");
    assert!(stale.came_by().starts_with("hit; ttl=-4"), "{}", stale.came_by());
    eventually("it is refreshed", async || client.get("/a").await.text() == "version \"2\"").await;
}

async fn what_is_stale_stands_in_for_an_error_where_it_may(rig: Rig) {
    let service = Service::new("max-age=60, stale-if-error=600");
    let client = service.behind(rig.responses()).await;
    client.get("/a").await;
    service.fails.store(true, Ordering::SeqCst);
    let answer = client.get("/a").await;
    assert_eq!((answer.status, answer.text()), (200, "version \"1\""));
    assert!(answer.came_by().ends_with("detail=stale-if-error"), "{}", answer.came_by());
    assert_eq!(client.get_with("/a", &[("cache-control", "no-cache")]).await.status, 503, "it wants no such");
    service.fails.store(false, Ordering::SeqCst);
    assert_eq!(client.get("/a").await.came_by(), "fwd=stale; stored; ttl=-40");

    rig.responses().invalidate_all().await.unwrap();
    let strict = Service::new("max-age=60, must-revalidate, stale-if-error=600");
    let client = strict.behind(rig.responses()).await;
    client.get("/a").await;
    strict.fails.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/a").await.status, 503);
}

async fn without_a_stale_window_nothing_stale_is_served(rig: Rig) {
    let policy = mtcache_cache::RegionPolicy::new("http", crate::rig::TTL);
    let service = Service::new("max-age=60, stale-while-revalidate=600, stale-if-error=600");
    let client = service.behind(mtcache_http::HttpCache::new(&rig.cache, policy).unwrap()).await;
    client.get("/a").await;
    service.changed.store(true, Ordering::SeqCst);
    assert_eq!(client.get("/a").await.text(), "version \"2\"");
    service.fails.store(true, Ordering::SeqCst);
    assert_eq!(client.get_with("/a", &[("cache-control", "max-stale")]).await.status, 503);
}
