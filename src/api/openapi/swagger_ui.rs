//! Swagger UI, a page to try the API on. Its files are compiled into the program.
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;
use rouille::{Request, Response, ResponseBody};
use utoipa_swagger_ui::Config;

use crate::api::error::ApiError;
use crate::api::{HandlerResult, RequestContext, headers};

/// The path of the page.
pub const PAGE_PATH: &str = "/api/v1/docs/";

/// The files of Swagger UI that the page, its index.html, loads.
const FILES: [&str; 7] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// The script that starts the page, and a script that is appended to it.
const INITIALIZER: &str = "swagger-initializer.js";
const FRESH_EXAMPLES: &str = include_str!("docs_fresh_examples.js");

/// Allows these files only, and requests to this service only. The style sheet has `data:` images.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Forms are open, the token survives a reload of the page, and no external validator is called.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../schema/")
        .use_base_layout()
        .try_it_out_enabled(true)
        .persist_authorization(true)
        .display_request_duration(true)
        .validator_url("none");
    Arc::new(config)
});

/// The name of one of the files, as the last segment of a path.
#[derive(Clone, Copy)]
pub struct SwaggerFile(&'static str);

impl FromStr for SwaggerFile {
    type Err = ();

    fn from_str(segment: &str) -> Result<SwaggerFile, ()> {
        let known = FILES.into_iter().find(|name| *name == segment);
        known.map(SwaggerFile).ok_or(())
    }
}

/// `GET /`: redirects browsers to the page. For clients that do not accept HTML the path does not exist, as in the API's
/// contract.
///
/// # Errors
/// 404 for such a client.
pub fn redirect_browser(request: &Request) -> HandlerResult {
    let accepted = headers::joined(request, "Accept").unwrap_or_default();
    let mut ranges = accepted.split([',', ';']).map(str::trim);
    if !ranges.any(|range| range.eq_ignore_ascii_case("text/html")) {
        return Err(ApiError::NotFound);
    }
    Ok(Response::redirect_302(PAGE_PATH).with_unique_header("Vary", "Accept"))
}

/// `GET docs/`: the page.
pub fn show_docs(request: &Request, _: &RequestContext) -> HandlerResult {
    file_response(request, "index.html", "no-cache")
}

/// `GET docs/{file}`: a file that the page loads.
pub fn show_docs_file(request: &Request, SwaggerFile(name): SwaggerFile) -> HandlerResult {
    file_response(request, name, "max-age=3600")
}

/// A file, usually as it is in the program, compressed; decompressed for clients that do not accept gzip.
fn file_response(request: &Request, name: &str, caching: &'static str) -> HandlerResult {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| ApiError::Internal(error.to_string()))?
        .ok_or(ApiError::NotFound)?;
    let is_gzip = file.gzpipped && accepts_gzip(request);
    let mut bytes = file.bytes;
    if file.gzpipped && !is_gzip {
        let mut decompressed = Vec::new();
        GzDecoder::new(&*bytes)
            .read_to_end(&mut decompressed)
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        bytes = Cow::Owned(decompressed);
    }
    if name == INITIALIZER {
        bytes.to_mut().extend_from_slice(FRESH_EXAMPLES.as_bytes());
    }
    let size = bytes.len();
    let mut response = Response::empty_204()
        .with_status_code(200)
        .with_unique_header("Content-Type", file.content_type)
        .with_unique_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with_unique_header("Cache-Control", caching)
        .with_unique_header("Vary", "Accept-Encoding");
    if is_gzip {
        response = response.with_unique_header("Content-Encoding", "gzip");
    }
    response.data = ResponseBody::from_reader_and_size(Cursor::new(bytes), size);
    Ok(response)
}

/// Whether the request's Accept-Encoding allows gzip (RFC 9110 12.5.3). A request without the header allows any coding, but
/// its client often cannot decompress.
fn accepts_gzip(request: &Request) -> bool {
    let header = headers::joined(request, "Accept-Encoding").unwrap_or_default();
    let quality_of = |wanted: &str| {
        header.split(',').find_map(|element| {
            let mut parts = element.split(';').map(str::trim);
            let coding = parts.next()?;
            let quality = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(Some(1.0), |(_, value)| value.trim().parse::<f32>().ok());
            coding.eq_ignore_ascii_case(wanted).then_some(quality)
        })
    };
    let quality = quality_of("gzip").or_else(|| quality_of("*")).flatten();
    quality.is_some_and(|quality| quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_only_if_the_request_allows_it() {
        for (value, expected) in [
            (None, false),
            (Some(""), false),
            (Some("identity"), false),
            (Some("br, deflate"), false),
            (Some("gzip"), true),
            (Some("br;q=1.0, GZIP ; Q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip;q=0.000, *"), false),
            (Some("gzip;q=x"), false),
            (Some("*"), true),
            (Some("*;q=0, gzip"), true),
            (Some("*;q=0"), false),
        ] {
            let headers = value.map(|value| ("Accept-Encoding".to_owned(), value.to_owned()));
            let headers = headers.into_iter().collect();
            let request = Request::fake_http("GET", "/", headers, Vec::new());
            assert_eq!(accepts_gzip(&request), expected, "{value:?}");
        }
    }
}
