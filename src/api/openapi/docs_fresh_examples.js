
// A username can be registered only once. Each load of the page therefore uses another one in the examples, and each further
// registration on the page yet another, so that the examples can be executed repeatedly.
{
  const createUi = window.SwaggerUIBundle;
  const name = `ann-${Date.now().toString(36)}`;
  let registrations = 0;
  const replaceExamples = (response) => {
    if (response.url.endsWith("/api/v1/schema/") && typeof response.text === "string") {
      response.text = response.text
        .replaceAll('"ann"', `"${name}"`)
        .replaceAll('"ann@example.com"', `"${name}@example.com"`);
    }
    return response;
  };
  const replaceRegisteredName = (request) => {
    if (request.url.endsWith("/api/v1/auth/register/") && typeof request.body === "string") {
      registrations += 1;
      if (registrations > 1) {
        request.body = request.body.replaceAll(name, `${name}-${registrations}`);
      }
    }
    return request;
  };
  window.SwaggerUIBundle = Object.assign(
    (options) => createUi({
      ...options,
      requestInterceptor: replaceRegisteredName,
      responseInterceptor: replaceExamples,
    }),
    createUi,
  );
}
