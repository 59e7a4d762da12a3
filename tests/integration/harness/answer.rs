//! An HTTP answer, and what each must look like.

use serde_json::Value;

/// The whole of an answer, and what was asked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Method and path of the request.
    pub asked: String,
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the value of a header that must be there.
    pub fn must_have(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name}: {self}"))
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Asserts the status; returns the JSON body.
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.must_have("content-type"), "application/json", "{self}");
        self.json()
    }

    /// Asserts that the answer is a problem with this status and code, in the form that all problems have.
    pub fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.must_have("content-type"), "application/problem+json", "{self}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self}");
        assert_eq!(problem["status"], status, "{self}");
        assert_eq!(problem["title"], phrase(status), "{self}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self}");
        assert_eq!(problem["request_id"], self.must_have("x-request-id"), "{self}");
        if [429, 503].contains(&status) {
            let seconds: u32 = self.must_have("retry-after").parse().unwrap();
            assert!(seconds >= 1 && problem["retry_after"] == seconds, "{self}");
        }
        problem
    }

    /// Asserts that the answer is a 422 with these per-event errors: index, code, pointer.
    pub fn refuses_the_events(&self, expected: &[(u32, &str, &str)]) -> Value {
        let problem = self.is_problem(422, "invalid_batch");
        assert_errors(&problem["errors"], expected);
        problem
    }
}

/// Asserts a list of per-event errors: index, code, pointer.
pub fn assert_errors(errors: &Value, expected: &[(u32, &str, &str)]) {
    let errors = errors.as_array().unwrap_or_else(|| panic!("no list of errors: {errors}"));
    let found: Vec<_> = errors
        .iter()
        .map(|error| {
            assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
            let index = error["index"].as_u64().unwrap() as u32;
            (index, error["code"].as_str().unwrap(), error["pointer"].as_str().unwrap())
        })
        .collect();
    assert_eq!(found, expected);
}

fn phrase(status: u16) -> &'static str {
    match status {
        // RFC 9110's phrases, of which some differ from those that older software sends.
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        _ => reqwest::StatusCode::from_u16(status).unwrap().canonical_reason().unwrap(),
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(2000).collect();
        write!(f, "{} -> {} {:?}\n{body}", self.asked, self.status, self.headers)
    }
}
