//! `GET /metrics`: the server's figures in Prometheus' text format (version 0.0.4). Shown to keys of the scope `admin`,
//! and without a key to programs on this machine and peers that the operator names. Labels are words of this program,
//! names of routes and names of trunks: never a number, a key, a tenant or a call. It counts nothing itself: each room
//! keeps its own figures, and this one reads them.

mod text;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::door::Door;
use super::fault::{self, Fault};
use super::openapi::{Routes, route};
use super::{App, gate, kaphila};
use crate::clock;
use crate::control::turn_figures::BOUNDS_MS;
use crate::store::outbox::Queue;
use text::Text;

/// What the answer is.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The one route.
pub fn routes(app: &App) -> Routes {
    let routes = Routes::new::<kaphila::Refused<'_>>();
    if app.rooms.config.metrics.enabled { routes.open([route(__path_show, show)]) } else { routes }
}

/// `GET /metrics`.
///
/// # Errors
/// Who may not see them; a database that failed.
#[utoipa::path(
    get, path = "/metrics", tag = "Admin: service", operation_id = "metrics",
    summary = "The server's figures",
    description = "Prometheus' text format. Needs a key of the scope `admin`, or comes from this machine or from one of \
        the networks in `metrics.allow_cidrs`.",
    security((), ("key" = [])),
    responses(
        (status = 200, description = "All figures", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or one that is unknown, expired or revoked", body = kaphila::Refused),
        (status = 403, description = "The key is not for `admin`, or the request was not sent to this server by a name \
            that it knows", body = kaphila::Refused),
        (status = 429, description = "Too many requests of this key", body = kaphila::Refused),
        (status = 500, description = "Something broke; the log says what", body = kaphila::Refused),
    )
)]
pub async fn show(State(app): State<App>, request: Request) -> Result<Response, Fault> {
    if !request.headers().contains_key(header::AUTHORIZATION) {
        let settings = &app.rooms.config.metrics;
        Door::new(&app, &settings.allow_cidrs, &settings.allow_hosts).lets_in(&request)?;
        return answer(&app).await;
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let (head, _) = request.into_parts();
    let shown = gate::credentials(&head.headers, peer);
    app.admission.identify(&shown, None, Some("admin"), clock::now()).await?;
    answer(&app).await
}

async fn answer(app: &App) -> Result<Response, Fault> {
    let queue = app.rooms.db.webhook_queue(clock::now().wall).await;
    let queue = queue.map_err(|error| fault::broken("the database", &error))?;
    let mut response = written(app, &queue).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    Ok(response)
}

fn written(app: &App, queue: &Queue) -> String {
    let mut text = Text::default();
    process(app, &mut text);
    calls(app, &mut text);
    media(app, &mut text);
    agents(app, &mut text);
    webhooks(app, queue, &mut text);
    http(app, &mut text);
    text.finish()
}

fn process(app: &App, text: &mut Text) {
    text.gauge(
        "trunkline_build_info",
        "Always 1; says what runs.",
        [(&[("version", env!("CARGO_PKG_VERSION"))] as &[_], 1.0)],
    );
    let up = clock::now().mono.duration_since(app.started).as_secs_f64();
    text.gauge("trunkline_uptime_seconds", "Seconds since the server began to serve.", [(&[] as &[_], up)]);
    let alive = if app.rooms.engine.is_alive() { 1.0 } else { 0.0 };
    text.gauge("trunkline_engine_up", "1 while the engine runs.", [(&[] as &[_], alive)]);
    let errors = app.rooms.db.errors();
    text.counter(
        "trunkline_database_errors_total",
        "Statements and transactions that failed.",
        [(&[] as &[_], errors)],
    );
    let tally = app.rooms.journal.tally();
    let lag = app.rooms.journal.lag() as f64;
    text.gauge("trunkline_journal_lag_events", "Events not yet committed.", [(&[] as &[_], lag)]);
    text.counter(
        "trunkline_journal_failures_total",
        "Transactions of the journal that failed and were repeated.",
        [(&[] as &[_], tally.failed())],
    );
    text.histogram(
        "trunkline_journal_commit_seconds",
        "Time that each transaction of the journal took.",
        [(&[] as &[_], tally.commits())],
    );
}

fn agents(app: &App, text: &mut Text) {
    let now = app.rooms.turns.snapshot();
    let (name, bucket) = ("trunkline_agent_answer_seconds", "trunkline_agent_answer_seconds_bucket");
    text.head(name, "histogram", "From a caller's last sound to the first of the answer, and its parts.");
    for series in &now.series {
        let mut below = 0;
        for (bound_ms, count) in BOUNDS_MS.iter().zip(series.buckets) {
            below += count;
            let edge = (f64::from(*bound_ms) / 1000.0).to_string();
            text.line(bucket, &[("part", series.part), ("le", &edge)], below);
        }
        let part = ("part", series.part);
        text.line(bucket, &[part, ("le", "+Inf")], series.count);
        let seconds = series.sum_ms as f64 / 1000.0;
        text.line("trunkline_agent_answer_seconds_sum", &[part], seconds);
        text.line("trunkline_agent_answer_seconds_count", &[part], series.count);
    }
    text.counter(
        "trunkline_agent_answers_interrupted_total",
        "Answers that callers spoke into.",
        [(&[] as &[_], now.interrupted)],
    );
}

fn calls(app: &App, text: &mut Text) {
    let live = app.rooms.engine.live_calls() as f64;
    text.gauge("trunkline_calls_live", "Calls that have not ended.", [(&[] as &[_], live)]);
    let limit = app.rooms.config.limits.max_calls as f64;
    text.gauge("trunkline_calls_live_max", "Calls that may be live at once.", [(&[] as &[_], limit)]);
    let facts = app.rooms.journal.tally().facts();
    text.counter(
        "trunkline_events_total",
        "Events of calls that were committed.",
        [(&[] as &[_], facts.events)],
    );
    text.counter("trunkline_calls_begun_total", "Calls placed or come in.", [(&[] as &[_], facts.begun)]);
    text.counter("trunkline_calls_answered_total", "Calls answered.", [(&[] as &[_], facts.answered)]);
    let name = "trunkline_calls_ended_total";
    text.head(name, "counter", "Calls ended, by reason and trunk.");
    for ((reason, trunk), count) in &facts.ended {
        text.line(name, &[("reason", reason), ("trunk", trunk)], *count);
    }
    let name = "trunkline_attempts_total";
    text.head(name, "counter", "Attempts by trunk and SIP status; 200: answered, 0: no response.");
    for ((trunk, code), count) in &facts.attempts {
        text.line(name, &[("trunk", trunk), ("code", &code.to_string())], *count);
    }
    let name = "trunkline_amd_verdicts_total";
    text.head(name, "counter", "Verdicts of answering-machine detection.");
    for (verdict, count) in &facts.screened {
        text.line(name, &[("verdict", verdict)], *count);
    }
    text.counter(
        "trunkline_calls_unheard_total",
        "Answered calls that heard nothing for a while.",
        [(&[] as &[_], facts.unheard)],
    );
}

fn media(app: &App, text: &mut Text) {
    let workers = app.rooms.engine.punctuality();
    for (name, help, count) in [
        ("trunkline_media_ticks_total", "Frames of 20 ms made, counted per call.", workers.ticks),
        (
            "trunkline_media_overruns_total",
            "Turns of a media thread that began over 5 ms late.",
            workers.overruns,
        ),
        ("trunkline_media_skipped_total", "Turns left out because a thread was far behind.", workers.skipped),
        (
            "trunkline_media_send_errors_total",
            "Datagrams that the system would not send.",
            workers.send_errors,
        ),
        (
            "trunkline_media_faults_total",
            "Calls whose media ended by a fault of the program.",
            workers.faults,
        ),
    ] {
        text.counter(name, help, [(&[] as &[_], count)]);
    }
    let name = "trunkline_media_lateness_seconds";
    text.head(name, "gauge", "How late turns of media threads began, since the start.");
    for (part, micros) in
        [("0.5", workers.lateness_p50_us), ("0.99", workers.lateness_p99_us), ("1", workers.lateness_max_us)]
    {
        text.line(name, &[("quantile", part)], micros as f64 / 1e6);
    }
    let sound = app.rooms.engine.sound();
    for (name, help, count) in [
        (
            "trunkline_rtp_packets_received_total",
            "RTP packets taken, of calls that are over.",
            &sound.packets_in,
        ),
        ("trunkline_rtp_packets_sent_total", "RTP packets sent, of calls that are over.", &sound.packets_out),
        ("trunkline_rtp_packets_lost_total", "RTP packets that never came.", &sound.lost),
        ("trunkline_rtp_packets_late_total", "RTP packets that came too late to be played.", &sound.late),
        ("trunkline_rtp_frames_concealed_total", "Frames made up for missing ones.", &sound.concealed),
        ("trunkline_rtp_strangers_total", "RTP packets of somebody else.", &sound.strangers),
    ] {
        text.counter(name, help, [(&[] as &[_], count.load(Ordering::Relaxed))]);
    }
}

fn webhooks(app: &App, queue: &Queue, text: &mut Text) {
    let figures = &app.deliveries;
    for (name, help, value) in [
        ("trunkline_webhook_lanes_waiting", "Calls and URLs for which a delivery waits.", queue.lanes as f64),
        (
            "trunkline_webhook_lanes_due",
            "Those of them whose delivery is due and not set aside.",
            queue.due as f64,
        ),
        (
            "trunkline_webhook_lanes_aside",
            "Those of them that wait for a receiver that is dead or has all it may have.",
            queue.aside as f64,
        ),
        (
            "trunkline_webhook_oldest_seconds",
            "Age of the oldest delivery that is next in its lane.",
            queue.oldest_ms as f64 / 1000.0,
        ),
        ("trunkline_webhook_under_way", "Attempts under way.", figures.under_way() as f64),
    ] {
        text.gauge(name, help, [(&[] as &[_], value)]);
    }
    let name = "trunkline_webhook_settled_total";
    text.head(name, "counter", "What became of deliveries after each attempt.");
    for (outcome, count) in figures.settled() {
        text.line(name, &[("outcome", outcome)], count);
    }
    let name = "trunkline_webhook_attempts_total";
    text.head(name, "counter", "Attempts by the class of the answer, or by what went wrong.");
    for (result, count) in figures.attempts() {
        text.line(name, &[("result", result)], count);
    }
    text.histogram(
        "trunkline_webhook_attempt_seconds",
        "Time that attempts took.",
        [(&[] as &[_], figures.took())],
    );
}

fn http(app: &App, text: &mut Text) {
    let routes = app.traffic.routes();
    let name = "trunkline_http_requests_total";
    text.head(name, "counter", "Requests by method, route and status.");
    for ((method, route), (statuses, _)) in &routes {
        for (status, count) in statuses {
            text.line(name, &[("method", method), ("route", route), ("status", &status.to_string())], *count);
        }
    }
    let name = "trunkline_http_request_seconds";
    text.head(name, "histogram", "Time from a request's head to its answer's.");
    for ((method, route), (_, took)) in &routes {
        text.buckets(name, &[("method", method), ("route", route)], took);
    }
    let name = "trunkline_refusals_total";
    text.head(name, "counter", "Requests that were refused, by reason.");
    for (reason, count) in app.traffic.refusals() {
        text.line(name, &[("reason", reason)], count);
    }
}
