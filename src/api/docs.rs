//! A page to try the API on: Swagger UI out of this binary. Knows no movies; what it shows is the schema's.
use std::io::Cursor;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use rouille::{Response, ResponseBody};
use utoipa_swagger_ui::Config;

use super::error::Error;

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

/// `GET docs/`: the page.
pub fn show_page() -> Result<Response, Error> {
    serve("index.html", "no-cache")
}

/// `GET docs/{file}`: what the page loads.
pub fn show_file(File(name): File) -> Result<Response, Error> {
    serve(name, "max-age=3600")
}

/// The file, compressed since the build: browsers alone ask for it, and all of them take gzip.
fn serve(name: &str, caching: &'static str) -> Result<Response, Error> {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| Error::Fault(error.to_string()))?
        .ok_or(Error::NotFound)?;
    let size = file.bytes.len();
    let mut response = Response::empty_204()
        .with_status_code(200)
        .with_unique_header("Content-Type", file.content_type)
        .with_unique_header("Content-Security-Policy", POLICY)
        .with_unique_header("Cache-Control", caching);
    if file.gzpipped {
        response = response.with_unique_header("Content-Encoding", "gzip");
    }
    response.data = ResponseBody::from_reader_and_size(Cursor::new(file.bytes), size);
    Ok(response)
}
