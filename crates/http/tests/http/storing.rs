//! What is stored, for whom, and what ends it.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use mtcache_cache::RegionMode;
use mtcache_http::{HttpCache, QueryKey};
use tower::ServiceExt;

use crate::rig::{Client, Count, Rig, eventually, on_both_backends, serve};

on_both_backends! {
    a_response_is_served_from_the_store_with_its_age,
    what_may_not_be_shared_is_never_stored,
    a_herd_asks_the_service_once,
    answers_for_one_user_reach_that_user_alone,
    responses_that_vary_are_kept_apart,
    a_change_forgets_the_response_and_its_variants,
    an_authorized_answer_is_shared_only_where_it_says_so,
    a_large_body_is_passed_through_whole,
    an_endless_body_is_passed_on_as_it_comes,
    a_304_that_changes_what_a_response_varies_by_is_kept_apart,
    an_absence_is_stored_for_the_life_that_was_told,
    a_killed_region_asks_the_service_each_time,
    queries_are_told_apart_or_sorted,
    a_response_with_bytes_and_headers_comes_back_as_it_was,
}

type Reply = (StatusCode, &'static [(&'static str, &'static str)], String);

/// Answers each GET with the same headers, and with how often it was asked.
async fn counting(
    responses: &HttpCache,
    headers: &'static [(&'static str, &'static str)],
) -> (Client, Count) {
    let count = Count::default();
    let counted = count.clone();
    let handler = move || {
        let n = counted.up();
        async move { reply((StatusCode::OK, headers, n.to_string())) }
    };
    let app = Router::new().route("/{*path}", get(handler)).layer(responses.layer());
    (serve(app).await, count)
}

fn reply((status, headers, body): Reply) -> Response {
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

async fn a_response_is_served_from_the_store_with_its_age(rig: Rig) {
    let headers = &[("cache-control", "max-age=60"), ("x-source", "exchange")];
    let (client, count) = counting(&rig.responses(), headers).await;
    let first = client.get("/a").await;
    assert_eq!((first.status, first.text()), (200, "1"));
    assert_eq!(first.came_by(), "fwd=uri-miss; stored; ttl=60");
    let second = client.get("/a").await;
    assert_eq!((second.status, second.text(), second.header("x-source")), (200, "1", "exchange"));
    assert!(second.is_hit() && second.came_by().contains("ttl="), "{second:?}");
    assert!(second.header("age").parse::<u64>().unwrap() <= 1);
    assert_eq!(client.get("/b").await.text(), "2");
    // Another process over the same backend.
    let (other, never) = counting(&rig.responses(), headers).await;
    assert_eq!((other.get("/a").await.text(), never.now(), count.now()), ("1", 0, 2));
    // HEAD is answered from it, and is not stored itself.
    let head = client.send("HEAD", "/a", &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "1", 0));
    assert!(head.is_hit());
    assert!(!client.send("HEAD", "/c", &[]).await.is_hit());
    assert!(!client.get("/c").await.is_hit());
}

async fn what_may_not_be_shared_is_never_stored(rig: Rig) {
    for headers in [
        &[("cache-control", "no-store, max-age=60")][..],
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "max-age=60"), ("set-cookie", "session=secret")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
        &[],
    ] {
        let (client, count) = counting(&rig.responses(), headers).await;
        for n in 1..4 {
            let answer = client.get("/a").await;
            assert_eq!((answer.text(), answer.is_hit()), (&*n.to_string(), false), "{headers:?}");
        }
        assert_eq!(count.now(), 3);
        rig.responses().invalidate_all().await.unwrap();
    }
    let headers = &[("cache-control", "max-age=60"), ("set-cookie", "theme=dark")];
    let (client, _) = counting(&rig.responses().store_set_cookie(), headers).await;
    client.get("/a").await;
    let told = client.get("/a").await;
    assert_eq!((told.is_hit(), told.header("set-cookie")), (true, "theme=dark"));
}

async fn a_herd_asks_the_service_once(rig: Rig) {
    let count = Count::default();
    let counted = count.clone();
    let handler = move || {
        counted.up();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            reply((StatusCode::OK, &[("cache-control", "max-age=60")], "one".to_owned()))
        }
    };
    let client = serve(Router::new().route("/slow", get(handler)).layer(rig.responses().layer())).await;
    let tasks: Vec<_> = (0..60).map(|_| tokio::spawn(async move { client.get("/slow").await })).collect();
    let mut collapsed = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.text(), "one");
        collapsed += usize::from(answer.came_by().contains("collapsed"));
    }
    assert_eq!(count.now(), 1);
    assert!(collapsed > 0, "nobody waited for another: nothing was tested");
}

async fn answers_for_one_user_reach_that_user_alone(rig: Rig) {
    let handler = |headers: HeaderMap| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let user = headers["x-user"].to_str().unwrap().to_owned();
        reply((StatusCode::OK, &[("cache-control", "private, max-age=60")], user))
    };
    let client = serve(Router::new().route("/me", get(handler)).layer(rig.responses().layer())).await;
    for _ in 0..2 {
        let ask = |n: usize| async move { client.get_with("/me", &[("x-user", &n.to_string())]).await };
        let tasks: Vec<_> = (0..30).map(|n| tokio::spawn(ask(n))).collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().text(), n.to_string());
        }
    }
}

/// Greets in the language that is asked for.
fn greeting(count: &Count) -> Router {
    let counted = count.clone();
    let handler = move |headers: HeaderMap| {
        counted.up();
        let language =
            headers.get("accept-language").map_or("none", |value| value.to_str().unwrap()).to_owned();
        async move {
            let headers = &[("cache-control", "max-age=60"), ("vary", "Accept-Language")];
            reply((StatusCode::OK, headers, language))
        }
    };
    let fails = |request: Request| async move {
        let fails = request.headers().contains_key("x-fail");
        if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }
    };
    Router::new().route("/hello", get(handler).post(fails))
}

async fn responses_that_vary_are_kept_apart(rig: Rig) {
    let count = Count::default();
    let client = serve(greeting(&count).layer(rig.responses().layer())).await;
    let ask = async |language: &str| client.get_with("/hello", &[("accept-language", language)]).await;
    for (language, hit) in
        [("de", false), ("en", false), ("de", true), ("EN", true), ("en, de", false), ("en,de", true)]
    {
        let answer = ask(language).await;
        assert_eq!(answer.text().to_lowercase().replace(' ', ""), language.to_lowercase().replace(' ', ""));
        assert_eq!(answer.is_hit(), hit, "{language}: {}", answer.came_by());
    }
    assert_eq!(client.get("/hello").await.text(), "none");
    assert_eq!((client.get("/hello").await.is_hit(), count.now()), (true, 4));
    assert_eq!(ask("fr").await.came_by(), "fwd=vary-miss; stored; ttl=60");
}

async fn a_change_forgets_the_response_and_its_variants(rig: Rig) {
    let count = Count::default();
    let responses = rig.responses();
    let client = serve(greeting(&count).layer(responses.layer())).await;
    let ask =
        async |language: &str| client.get_with("/hello", &[("accept-language", language)]).await.is_hit();
    assert_eq!(
        (ask("de").await, ask("en").await, ask("de").await, ask("en").await),
        (false, false, true, true)
    );
    assert_eq!(client.send("POST", "/hello", &[("x-fail", "1")]).await.status, 500);
    assert!(ask("de").await, "what failed has changed nothing");
    assert_eq!(client.send("POST", "/hello", &[]).await.status, 204);
    assert_eq!((ask("de").await, ask("en").await, ask("de").await), (false, false, true));
    assert!(responses.invalidate(&"http://test/hello".parse().unwrap()).await.unwrap());
    assert_eq!((ask("en").await, ask("de").await), (false, false));
    assert!(!responses.invalidate(&"http://test/other".parse().unwrap()).await.unwrap());
}

async fn an_authorized_answer_is_shared_only_where_it_says_so(rig: Rig) {
    let with = &[("authorization", "Bearer x")];
    let (client, _) = counting(&rig.responses(), &[("cache-control", "max-age=60")]).await;
    assert!(!client.get_with("/a", with).await.is_hit());
    assert!(!client.get_with("/a", with).await.is_hit());
    assert!(!client.get("/b").await.is_hit());
    assert!(client.get("/b").await.is_hit());
    assert!(!client.get_with("/b", with).await.is_hit(), "an answer to nobody is not one to somebody");
    rig.responses().invalidate_all().await.unwrap();
    let (client, _) = counting(&rig.responses(), &[("cache-control", "public, max-age=60")]).await;
    assert!(!client.get_with("/a", with).await.is_hit());
    assert!(client.get_with("/a", with).await.is_hit() && client.get("/a").await.is_hit());
}

async fn a_large_body_is_passed_through_whole(rig: Rig) {
    let count = Count::default();
    let counted = count.clone();
    let handler = move || {
        counted.up();
        async move {
            // No length is told before.
            let parts = (0..100_u8)
                .map(|n| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![n; 1000]))));
            let body = Body::new(StreamBody::new(futures_util::stream::iter(parts)));
            ([("cache-control", "max-age=60")], body)
        }
    };
    let responses = rig.responses().max_body(50_000);
    let client = serve(Router::new().route("/large", get(handler)).layer(responses.layer())).await;
    for _ in 0..2 {
        let answer = client.get("/large").await;
        let due: Vec<u8> = (0..100_u8).flat_map(|n| vec![n; 1000]).collect();
        assert!(answer.body == due && !answer.is_hit(), "{}", answer.came_by());
    }
    assert_eq!(count.now(), 2);
}

/// A body that begins and never ends.
fn endless(kind: &'static str) -> Response {
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(
        "data: 1\n\n",
    )))]);
    let body = Body::new(StreamBody::new(first.chain(futures_util::stream::pending())));
    ([("content-type", kind)], body).into_response()
}

async fn an_endless_body_is_passed_on_as_it_comes(rig: Rig) {
    let told = rig.responses().default_life(Duration::from_mins(1));
    for (kind, wait) in [
        ("text/event-stream; charset=utf-8", Duration::from_hours(1)),
        ("application/json", Duration::from_millis(100)),
    ] {
        let responses = told.clone().max_body_wait(wait);
        let app = Router::new()
            .route("/events", get(move || async move { endless(kind) }))
            .layer(responses.layer());
        for _ in 0..2 {
            let request = Request::get("/events").body(Body::empty()).unwrap();
            let first = async {
                let mut answer = app.clone().oneshot(request).await.unwrap().into_body();
                answer.frame().await.unwrap().unwrap().into_data().unwrap()
            };
            let first = tokio::time::timeout(Duration::from_secs(20), first).await;
            assert_eq!(first.expect("the client waits for a body without end"), "data: 1\n\n");
        }
        rig.responses().invalidate_all().await.unwrap();
    }
}

async fn a_304_that_changes_what_a_response_varies_by_is_kept_apart(rig: Rig) {
    let count = Count::default();
    let counted = count.clone();
    let handler = move |headers: HeaderMap| {
        counted.up();
        let language =
            headers.get("accept-language").map_or("none", |value| value.to_str().unwrap()).to_owned();
        let is_known =
            headers.get("if-none-match").is_some_and(|tag| tag == format!("\"{language}\"").as_str());
        let first = counted.now() == 1;
        async move {
            let control = if first { "no-cache" } else { "max-age=60" };
            let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            let body = if is_known { String::new() } else { language.clone() };
            let mut response = (status, body).into_response();
            let headers = response.headers_mut();
            headers.insert("cache-control", control.parse().unwrap());
            headers.insert("etag", format!("\"{language}\"").parse().unwrap());
            if !first {
                headers.insert("vary", "accept-language".parse().unwrap());
            }
            response
        }
    };
    let client = serve(Router::new().route("/hello", get(handler)).layer(rig.responses().layer())).await;
    let ask = async |language: &str| client.get_with("/hello", &[("accept-language", language)]).await;
    assert_eq!(ask("de").await.text(), "de");
    // It is asked about, and answered with 304: from now on it varies.
    assert_eq!((ask("de").await.text(), count.now()), ("de", 2));
    let (german, english) = (ask("de").await, ask("en").await);
    assert_eq!((german.text(), english.text()), ("de", "en"), "another language's answer");
    assert!(german.is_hit() && !english.is_hit());
    let (german, english) = (ask("de").await, ask("en").await);
    assert_eq!((german.text(), english.text(), german.is_hit() && english.is_hit()), ("de", "en", true));
    assert_eq!(count.now(), 3);
}

async fn an_absence_is_stored_for_the_life_that_was_told(rig: Rig) {
    let count = Count::default();
    let counted = count.clone();
    let handler = move || {
        counted.up();
        async move { StatusCode::NOT_FOUND }
    };
    let app = Router::new().route("/none", get(handler));
    let told = serve(app.clone().layer(rig.responses().negative_life(Duration::from_secs(5)).layer())).await;
    assert_eq!((told.get("/none").await.status, told.get("/none").await.status, count.now()), (404, 404, 1));
    rig.responses().invalidate_all().await.unwrap();
    let untold = serve(app.layer(rig.responses().layer())).await;
    untold.get("/none").await;
    untold.get("/none").await;
    assert_eq!(count.now(), 3);
}

async fn a_killed_region_asks_the_service_each_time(rig: Rig) {
    let (client, count) = counting(&rig.responses(), &[("cache-control", "max-age=60")]).await;
    client.get("/a").await;
    rig.cache.control("http").unwrap().set_mode(RegionMode::Killed);
    assert_eq!((client.get("/a").await.text(), client.get("/a").await.text()), ("2", "3"));
    rig.cache.control("http").unwrap().set_mode(RegionMode::On);
    eventually("it is stored again", async || client.get("/a").await.is_hit()).await;
    assert_eq!(count.now(), 4);
}

async fn queries_are_told_apart_or_sorted(rig: Rig) {
    let headers = &[("cache-control", "max-age=60")];
    let (client, _) = counting(&rig.responses(), headers).await;
    assert!(!client.get("/a?x=1&y=2").await.is_hit() && !client.get("/a?y=2&x=1").await.is_hit());
    let (client, _) = counting(&rig.responses().query(QueryKey::Sorted), headers).await;
    assert!(!client.get("/b?x=1&y=2").await.is_hit() && client.get("/b?y=2&x=1").await.is_hit());
}

async fn a_response_with_bytes_and_headers_comes_back_as_it_was(rig: Rig) {
    let handler = || async {
        let mut response = Response::new(Body::from(vec![0, 159, 146, 150, 255]));
        for (name, value) in [("cache-control", "max-age=60"), ("x-two", "1"), ("x-three", "a, b")] {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    };
    let client = serve(Router::new().route("/bytes", get(handler)).layer(rig.responses().layer())).await;
    for hit in [false, true] {
        let answer = client.get("/bytes").await;
        assert_eq!((answer.is_hit(), &answer.body[..]), (hit, &[0, 159, 146, 150, 255][..]));
        assert_eq!((answer.header("x-two"), answer.header("x-three")), ("1", "a, b"));
    }
}
