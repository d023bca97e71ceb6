//! The document of the HTTP surfaces (OpenAPI 3.1), made from the handlers' own types, and the page that shows it.
//!
//! A route cannot be served without its documentation: [`route`] takes method and path from what `utoipa::path` made
//! of the handler, and a surface's router is built of nothing else. What a gate adds to every route behind it (the
//! key, its refusals, the rate window) is written here once. This room decides nothing and reads no request.

mod page;

use axum::Router;
use axum::body::Bytes as Body;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, Content, Info, License, OpenApi, OpenApiBuilder, Paths, RefOr, Required, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::App;
use super::gate::{self, Gate};
use super::idempotency::{self, Once};
use crate::control::admission::Counted;

/// The name of the way to show a key.
const KEY: &str = "key";

/// Schemas by name, as they are collected.
type Schemas = Vec<(String, RefOr<Schema>)>;

/// A file's bytes, for routes that answer no JSON.
pub struct Bytes;

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).content_media_type("application/octet-stream").into()
    }
}

impl ToSchema for Bytes {}

/// One method on one path: its handler and its documentation.
pub struct Route {
    path: String,
    method: HttpMethod,
    handler: MethodRouter<App>,
    operation: Operation,
    schemas: Schemas,
}

/// A handler under the path and method of its documentation: `route(calls::__path_place, calls::place)`, the first
/// being what `#[utoipa::path]` makes beside the second.
pub fn route<D, H, T>(_: D, handler: H) -> Route
where
    D: utoipa::Path + utoipa::__dev::SchemaReferences + for<'t> utoipa::__dev::Tags<'t>,
    H: Handler<T, App>,
    T: 'static,
{
    let mut schemas = Vec::new();
    D::schemas(&mut schemas);
    // The macro takes one method or more; ours are written with one.
    let method = D::methods().into_iter().next().unwrap_or(HttpMethod::Get);
    let handler = on(filter(&method), handler);
    let mut operation = D::operation();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.values_mut().for_each(or_nothing);
    }
    operation.tags = Some(D::tags().into_iter().map(str::to_owned).collect());
    Route { path: D::path(), method, handler, operation, schemas }
}

/// A body that may be left out is documented as one that may be `null`; none of ours may.
fn or_nothing(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content
        && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
        && let Some(whole @ RefOr::Ref(_)) = either.items.iter().find(|item| matches!(item, RefOr::Ref(_)))
    {
        content.schema = Some(whole.clone());
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

impl Route {
    /// Makes it one that repeats its answer to a repeated `Idempotency-Key` (CONTRACT 0.5).
    #[must_use]
    pub fn once(mut self, once: &Once) -> Self {
        self.handler =
            self.handler.route_layer(middleware::from_fn_with_state(once.clone(), idempotency::pass));
        let name = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "1 to 128 visible ASCII characters, fresh for each thing to be done. A request that repeats one \
                 within 24 hours is given the answer of the first, with `Idempotent-Replayed: true`.",
            ))
            .schema(Some(text().min_length(Some(1)).max_length(Some(128)).pattern(Some("^[!-~]+$"))));
        self.operation.parameters.get_or_insert_default().push(name.build().into());
        self.add(None, "409", "The Idempotency-Key was used with another body, or its request is under way");
        self
    }

    /// Adds an answer unless the handler documents one of that status itself.
    fn add(&mut self, schema: Option<&str>, status: &str, description: &str) {
        let responses = &mut self.operation.responses.responses;
        if responses.contains_key(status) {
            return;
        }
        let mut response = ResponseBuilder::new().description(description);
        if let Some(schema) = schema {
            let content = Content::new(Some(Ref::from_schema_name(schema)));
            response = response.content("application/json", content);
        }
        responses.insert(status.to_owned(), response.build().into());
    }

    /// Puts a gate before the handler, and what that may answer into the documentation.
    fn behind(mut self, gate: &Gate, error: &str) -> Self {
        self.handler = self.handler.route_layer(middleware::from_fn_with_state(gate.clone(), gate::pass));
        self.guard(gate, error);
        self
    }

    /// What the gate before it may answer.
    fn guard(&mut self, gate: &Gate, error: &str) {
        self.operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(KEY, [])]);
        self.add(Some(error), "401", "No key, or one that is unknown, expired or revoked");
        let forbidden = match gate.scope {
            Some(scope) => format!("The key is not for `{scope}`, or not for the address it is shown from"),
            None => "The key is not for the address it is shown from".to_owned(),
        };
        self.add(Some(error), "403", &forbidden);
        self.add(Some(error), "429", "Too many requests; `Retry-After` says when to ask again");
        self.add(Some(error), "500", "Something broke; the log says what");
        if self.method != HttpMethod::Get {
            self.add(Some(error), "408", "The body did not arrive in time");
            self.add(Some(error), "413", "The body is too large");
        }
        self.header("429", "Retry-After", "Seconds to wait");
        if gate.counted != Counted::Not {
            for status in ["200", "201", "429"] {
                self.header(status, "X-RateLimit-Limit", "Requests in each window");
                self.header(status, "X-RateLimit-Remaining", "Requests left in this one");
                self.header(
                    status,
                    "X-RateLimit-Reset",
                    "When requests are taken again, or the window ends, unix seconds",
                );
            }
        }
    }

    fn header(&mut self, status: &str, name: &str, description: &str) {
        if let Some(RefOr::T(response)) = self.operation.responses.responses.get_mut(status) {
            let whole = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new().description(Some(description)).schema(Some(whole));
            response.headers.insert(name.to_owned(), header.build().into());
        }
    }

    /// Gives the answers that have no form yet the surface's form of errors.
    fn settle(&mut self, error: &str) {
        let in_query = |parameter: &RefOr<Parameter>| {
            matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Query, .. }))
        };
        if self.operation.parameters.iter().flatten().any(in_query) {
            self.add(Some(error), "400", "A parameter is wrong, and the text names it");
        }
        for (status, response) in &mut self.operation.responses.responses {
            if let RefOr::T(response) = response
                && response.content.is_empty()
                && status.starts_with(['4', '5'])
            {
                let content = Content::new(Some(Ref::from_schema_name(error)));
                response.content.insert("application/json".to_owned(), content.into());
            }
        }
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The routes of one surface, and their part of the document.
pub struct Routes {
    router: Router<App>,
    document: OpenApi,
    error: String,
}

impl Routes {
    /// None yet; `E` is the surface's form of errors.
    pub fn new<E: ToSchema>() -> Self {
        let mut document = OpenApi::new(Info::default(), Paths::new());
        let error = E::name().into_owned();
        let components = document.components.get_or_insert_default();
        components.schemas.insert(error.clone(), E::schema());
        let mut within = Schemas::new();
        E::schemas(&mut within);
        components.schemas.extend(within);
        Self { router: Router::new(), document, error }
    }

    /// Adds routes that need no key.
    #[must_use]
    pub fn open(self, routes: impl IntoIterator<Item = Route>) -> Self {
        routes.into_iter().fold(self, Self::with)
    }

    /// Adds routes behind a gate. It stands before the handlers alone, so that a wrong method is a 405 for
    /// everybody.
    #[must_use]
    pub fn guarded(self, gate: &Gate, routes: impl IntoIterator<Item = Route>) -> Self {
        routes.into_iter().fold(self, |all, route| {
            let route = route.behind(gate, &all.error);
            all.with(route)
        })
    }

    /// As [`Routes::guarded`], where a door of the surface's own stands before the gate and lets some pass without a
    /// key ([`gate::StandIn`]).
    #[must_use]
    pub fn guarded_by_door(
        self,
        gate: &Gate,
        door: impl Fn(MethodRouter<App>) -> MethodRouter<App>,
        routes: impl IntoIterator<Item = Route>,
    ) -> Self {
        routes.into_iter().fold(self, |all, route| {
            let mut route = route.behind(gate, &all.error);
            route.handler = door(route.handler);
            route.operation.security.get_or_insert_default().push(SecurityRequirement::default());
            all.with(route)
        })
    }

    /// Adds documented routes' further paths behind the same gate.
    #[must_use]
    pub fn aliased(
        mut self,
        gate: &Gate,
        routes: impl IntoIterator<Item = (&'static str, MethodRouter<App>)>,
    ) -> Self {
        for (path, handler) in routes {
            let gated = handler.route_layer(middleware::from_fn_with_state(gate.clone(), gate::pass));
            self.router = self.router.route(path, gated);
        }
        self
    }

    /// Adds paths where WebSockets begin, which see to their keys themselves.
    #[must_use]
    pub fn upgrading(mut self, routes: impl IntoIterator<Item = (&'static str, MethodRouter<App>)>) -> Self {
        for (path, handler) in routes {
            self.router = self.router.route(path, handler);
        }
        self
    }

    fn with(mut self, mut route: Route) -> Self {
        route.settle(&self.error);
        let components = self.document.components.get_or_insert_default();
        components.schemas.extend(route.schemas);
        self.document
            .paths
            .paths
            .entry(route.path.replace("{*", "{"))
            .or_default()
            .merge_operations(PathItem::new(route.method, route.operation));
        self.router = self.router.route(&route.path, route.handler);
        self
    }

    /// The router and its document.
    pub fn into_parts(self) -> (Router<App>, OpenApi) {
        (self.router, self.document)
    }
}

/// The document before any surface is in it.
pub fn document() -> OpenApi {
    let mut info = Info::new("trunkline", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "A telephony media engine: place a call, learn who answered, speak, play sounds, collect digits, record, and \
         be told of everything by signed webhooks. Every surface is also served whole below its own name, \
         `/kaphila/makecall` for instance, and every GET answers HEAD too."
            .to_owned(),
    );
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".to_owned());
    info.license = Some(license);
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some("`Authorization: Bearer ak_…`".to_owned());
    let mut components = Components::new();
    components.add_security_scheme(KEY, SecurityScheme::Http(scheme));
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Puts a surface's part into the document, under the path where it hangs.
pub fn include(document: &mut OpenApi, mut part: OpenApi, mount: &str) {
    if !mount.is_empty() {
        let paths = std::mem::take(&mut part.paths.paths);
        part.paths.paths = paths.into_iter().map(|(path, item)| (format!("{mount}{path}"), item)).collect();
    }
    document.merge(part);
}

/// Where the document is served: `/openapi.json` for programs and `/docs` for people. Neither needs a key, for
/// neither says more than the source does.
pub fn routes(document: &OpenApi) -> Router<App> {
    let value = serde_json::to_value(document).unwrap_or_default();
    let json = Body::from(value.to_string());
    let page = Body::from(page::render(&value));
    let served = |body: Body, kind: &'static str| get(move || async move { fixed(body, kind) });
    Router::new()
        .route("/openapi.json", served(json, "application/json; charset=utf-8"))
        .route("/docs", served(page, "text/html; charset=utf-8"))
}

/// A body made at start. The page loads nothing and is nobody's frame.
fn fixed(body: Body, kind: &'static str) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 4] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
            ),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let mut response = body.into_response();
    response.headers_mut().extend(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
