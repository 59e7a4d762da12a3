//! `/docs` and `/openapi.json`: the API's description, and the pages that show it, out of the binary.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::Path,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Response},
};
use utoipa_swagger_ui::Config;

use super::{
    error::Code,
    openapi::openapi_json,
    problem::{Problem, Result},
};

/// Where the pages find the description. Unless told not to, they show a badge that a server elsewhere draws.
static PAGES: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none")));

/// Shows the API in a browser.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operation",
    operation_id = "docs",
    responses((status = 200, body = String, content_type = "text/html; charset=utf-8", description = "Swagger UI.", example = "<!DOCTYPE html>")),
)]
pub(super) async fn index() -> Result<Response> {
    let page = String::from_utf8(read("index.html")?.0).unwrap_or_default();
    // The page names its files from where it lies; one base serves `/docs` and `/docs/` alike.
    Ok(Html(page.replacen("<head>", "<head>\n    <base href=\"/docs/\">", 1)).into_response())
}

/// Returns a file that the page names.
pub(super) async fn file(Path(path): Path<String>) -> Result<Response> {
    let (bytes, content_type) = read(&path)?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap_or(HeaderValue::from_static("text/plain"))),
        (CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
    ];
    Ok((headers, bytes).into_response())
}

fn read(path: &str) -> Result<(Vec<u8>, String)> {
    match utoipa_swagger_ui::serve(path, Arc::clone(&PAGES)) {
        Ok(Some(file)) => Ok((file.bytes.into_owned(), file.content_type)),
        _ => Err(Problem::new(Code::NotFound, "there is no such page")),
    }
}

/// Tells the API's description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    operation_id = "openapi",
    responses((status = 200, body = Object, content_type = "application/json", description = "OpenAPI 3.1.", example = json!({"openapi": "3.1.0"}))),
)]
pub(super) async fn openapi() -> Response {
    static JSON: LazyLock<String> = LazyLock::new(openapi_json);
    ([(CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}
