//! A credential in, the means to speak to its server out.

use secrecy::ExposeSecret;

use crate::{error::Result, http::Http, store::Enrollment};

/// An enrolment and the client for its server. Replaced as a whole when the file is enrolled again.
pub(crate) struct Session {
    pub http: Http,
    pub enrollment: Enrollment,
}

impl Session {
    pub fn new(enrollment: Enrollment) -> Result<Self> {
        Ok(Session { http: Http::new(enrollment.base_url.clone())?, enrollment })
    }

    /// Whether the enrolment is still the one that this session speaks for.
    pub fn is_of(&self, enrollment: &Enrollment) -> bool {
        let own = &self.enrollment;
        own.base_url == enrollment.base_url
            && own.instructions_url == enrollment.instructions_url
            && own.device_token.expose_secret() == enrollment.device_token.expose_secret()
    }
}
