//! A page to try the API on: Swagger UI out of this binary. Knows no movies; what it shows is the schema's.
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;
use rouille::{Request, Response, ResponseBody};
use utoipa_swagger_ui::Config;

use super::error::Error;
use super::headers;

/// What the page loads, out of all that Swagger UI comes with. Its index.html is the page itself.
const FILES: [&str; 7] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// The file that starts the page, and what is appended to it.
const INITIALIZER: &str = "swagger-initializer.js";
const FRESH_EXAMPLES: &str = include_str!("docs_fresh_examples.js");

/// Nothing but these files runs, and nothing is asked of anybody but this service. Pictures inside the style sheet are
/// `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Forms are open at once, and who signed in stays so when the page is loaded again. No validator is asked for a badge.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../schema/")
        .use_base_layout()
        .try_it_out_enabled(true)
        .persist_authorization(true)
        .display_request_duration(true)
        .validator_url("none");
    Arc::new(config)
});

/// One of the files, as the last segment of a path.
pub struct File(&'static str);

impl FromStr for File {
    type Err = ();

    fn from_str(segment: &str) -> Result<File, ()> {
        let known = FILES.into_iter().find(|name| *name == segment);
        known.map(File).ok_or(())
    }
}

/// `GET /`: sends a browser on to the page. To clients that do not ask for HTML the path is unknown, as the contract has it.
pub fn redirect_to_page(request: &Request) -> Result<Response, Error> {
    let accepted = headers::find_joined(request, "Accept").unwrap_or_default();
    let mut ranges = accepted.split([',', ';']).map(str::trim);
    if !ranges.any(|range| range.eq_ignore_ascii_case("text/html")) {
        return Err(Error::NotFound);
    }
    Ok(Response::redirect_302("/api/v1/docs/").with_unique_header("Vary", "Accept"))
}

/// `GET docs/`: the page.
pub fn show_page(request: &Request) -> Result<Response, Error> {
    serve(request, "index.html", "no-cache")
}

/// `GET docs/{file}`: what the page loads.
pub fn show_file(request: &Request, File(name): File) -> Result<Response, Error> {
    serve(request, name, "max-age=3600")
}

/// Returns the file: as it is in the binary, most often compressed, to a client that accepts that, and unpacked to others.
fn serve(request: &Request, name: &str, caching: &'static str) -> Result<Response, Error> {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| Error::Fault(error.to_string()))?
        .ok_or(Error::NotFound)?;
    let is_gzip = file.gzpipped && accepts_gzip(request);
    let mut bytes = file.bytes;
    if file.gzpipped && !is_gzip {
        let mut unpacked = Vec::new();
        GzDecoder::new(&*bytes)
            .read_to_end(&mut unpacked)
            .map_err(|error| Error::Fault(error.to_string()))?;
        bytes = Cow::Owned(unpacked);
    }
    if name == INITIALIZER {
        bytes.to_mut().extend_from_slice(FRESH_EXAMPLES.as_bytes());
    }
    let size = bytes.len();
    let mut response = Response::empty_204()
        .with_status_code(200)
        .with_unique_header("Content-Type", file.content_type)
        .with_unique_header("Content-Security-Policy", POLICY)
        .with_unique_header("Cache-Control", caching)
        .with_unique_header("Vary", "Accept-Encoding");
    if is_gzip {
        response = response.with_unique_header("Content-Encoding", "gzip");
    }
    response.data = ResponseBody::from_reader_and_size(Cursor::new(bytes), size);
    Ok(response)
}

/// Whether the request's Accept-Encoding allows gzip (RFC 9110 12.5.3). Without the header any coding is allowed, but a
/// client that sends none often cannot unpack it.
fn accepts_gzip(request: &Request) -> bool {
    let header = headers::find_joined(request, "Accept-Encoding").unwrap_or_default();
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
