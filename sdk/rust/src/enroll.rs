//! An enrolment URL from a QR code in, a device with a credential and its tables out.

use std::path::Path;

use posduif_model::UserId;
use serde::Deserialize;
use url::Url;

use crate::{
    error::{Error, Result},
    http::{Http, is_loopback},
    instructions::Instructions,
    lock::SyncLock,
    store::{Enrollment, Store},
};

/// Where to enrol, and the single-use token to do it with.
struct Invitation {
    base: Url,
    token: String,
}

#[derive(Deserialize)]
struct Completed {
    user_id: UserId,
    tenant_id: String,
    device_token: String,
    app_instructions_url: String,
}

/// Enrols the database at `path`; may be repeated with the same URL after any failure.
pub(crate) async fn enroll(
    path: &Path,
    enrollment_url: &str,
    username: &str,
    device_info: serde_json::Value,
) -> Result<()> {
    let invitation = Invitation::parse(enrollment_url)?;
    if invitation.base.scheme() != "https" && !is_loopback(&invitation.base) {
        tracing::warn!("enrolling over plain HTTP: anyone on the way can read the credential");
    }
    let mut store = Store::open_or_create(path)?;
    let _lock = SyncLock::acquire(path)?;
    let body = match known(&store).await? {
        Some(_) if store.progress()?.instructed => {
            return Err(Error::Unusable(format!("{} is already enrolled", path.display())));
        }
        // The credential came, the tables did not.
        Some(body) => body,
        None => {
            let http = Http::new(invitation.base.clone())?;
            let enrollment = redeem(&http, &mut store, invitation, username, device_info).await?;
            store.enrolled(&enrollment)?;
            http.instructions(&enrollment).await?
        }
    };
    store.install(&Instructions::parse(&body)?)?;
    Ok(())
}

/// The app instructions, if this is a device whose credential the server still takes.
async fn known(store: &Store) -> Result<Option<Vec<u8>>> {
    if !store.is_enrolled()? {
        return Ok(None);
    }
    let device = store.enrollment()?;
    match Http::new(device.base_url.clone())?.instructions(&device).await {
        Ok(body) => Ok(Some(body)),
        Err(Error::Unauthorized(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn redeem(
    http: &Http,
    store: &mut Store,
    invitation: Invitation,
    username: &str,
    device_info: serde_json::Value,
) -> Result<Enrollment> {
    let before = if store.is_enrolled()? { Some(store.enrollment()?) } else { None };
    let device_id = store.device_id_for(&invitation.token)?;
    let request = serde_json::json!({
        "token": invitation.token,
        "device_id": device_id,
        "username": username,
        "device_info": device_info,
    });
    let answer = http.complete_enrollment(&request).await.map_err(|error| match (&before, error) {
        (Some(before), Error::Rejected { code, .. }) if code == "CONFLICT" => of_another(before),
        (_, error) => error,
    })?;
    let completed: Completed = serde_json::from_slice(&answer)
        .map_err(|error| Error::unreadable("answer to the enrolment", &error))?;
    if let Some(before) = before
        && (before.user_id != completed.user_id || before.tenant_id != completed.tenant_id)
    {
        return Err(of_another(&before));
    }
    Ok(Enrollment {
        device_id,
        user_id: completed.user_id,
        tenant_id: completed.tenant_id,
        username: username.to_owned(),
        instructions_url: at_origin(&invitation.base, &completed.app_instructions_url)?,
        base_url: invitation.base,
        device_token: completed.device_token.into(),
    })
}

fn of_another(before: &Enrollment) -> Error {
    Error::Unusable(format!(
        "this file is the device of {0} and cannot become another user's; ask for an enrolment URL made for \
         {0}, or enrol in a new file",
        before.username
    ))
}

impl Invitation {
    /// Splits `<base>/api/enrollment/<token>`.
    fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Unusable("this is not an enrolment URL".to_owned());
        let mut base = Url::parse(text.trim()).map_err(|_| invalid())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(invalid());
        }
        let path = base.path().trim_end_matches('/').to_owned();
        let (prefix, token) = path.rsplit_once("/api/enrollment/").ok_or_else(invalid)?;
        if token.is_empty() || token.contains('/') {
            return Err(invalid());
        }
        base.set_path(prefix);
        base.set_query(None);
        base.set_fragment(None);
        Ok(Invitation { base, token: token.to_owned() })
    }
}

/// The path of a URL of the server, at the origin that the device enrolled at: the credential goes nowhere else,
/// and a device that reaches the server through a proxy keeps doing so.
fn at_origin(base: &Url, url: &str) -> Result<Url> {
    let invalid = |_| Error::Protocol("app_instructions_url is not a URL".to_owned());
    let named = base.join(url).map_err(invalid)?;
    let mut here = base.clone();
    here.set_path(named.path());
    here.set_query(named.query());
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_qr_code_names_server_and_token() {
        let invitation = Invitation::parse("https://sync.example:8443/p/api/enrollment/t.k-1?x=1\n").unwrap();
        assert_eq!(invitation.base.as_str(), "https://sync.example:8443/p");
        assert_eq!(invitation.token, "t.k-1");
        for text in [
            "",
            "t.k-1",
            "http://h/",
            "http://h/api/enrollment/",
            "ftp://h/api/enrollment/t",
            "http://h/api/enrollment/t/qr.svg",
        ] {
            assert!(matches!(Invitation::parse(text), Err(Error::Unusable(_))), "{text}");
        }
    }

    #[test]
    fn the_credential_stays_at_the_origin_of_the_enrolment() {
        let base = Url::parse("https://sync.example/p").unwrap();
        for (url, expected) in [
            (
                "https://evil.example/api/app-instructions?v=1",
                "https://sync.example/api/app-instructions?v=1",
            ),
            ("/p/api/app-instructions", "https://sync.example/p/api/app-instructions"),
        ] {
            assert_eq!(at_origin(&base, url).unwrap().as_str(), expected);
        }
    }
}
