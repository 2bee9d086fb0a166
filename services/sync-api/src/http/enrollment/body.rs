//! What `/api/enrollment` is asked with and what it answers.

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, TenantId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::error::ApiError;

/// Whom a device may be enrolled for.
#[derive(Default, Deserialize, ToSchema)]
#[schema(example = json!({"username": "Joe"}))]
pub struct Invitation {
    /// The mobile user whose new phone this is for; left out, the phone's user will be a new one.
    #[schema(
        pattern = r"^[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]([^\u0000-\u001F\u007F-\u009F]{0,198}[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000])?[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*$"
    )]
    pub username: Option<String>,
}

/// A permission to enrol one device.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "token": "dGVuYW50XzE.QVgOg43SbI1zdxW8mNtrCwKpH7fQeUaZ2yLgVjXo0Rk",
    "qr_code_data": {
        "enrollment_url": "https://sync.example/api/enrollment/dGVuYW50XzE.QVgOg43SbI1zdxW8mNtrCwKpH7fQeUaZ2yLgVjXo0Rk",
        "token": "dGVuYW50XzE.QVgOg43SbI1zdxW8mNtrCwKpH7fQeUaZ2yLgVjXo0Rk", "tenant_id": "tenant_1",
    },
    "expires_at": "2026-11-23T10:53:05.009837Z",
}))]
pub struct Invited {
    pub token: String,
    pub qr_code_data: QrCodeData,
    pub expires_at: DateTime<Utc>,
}

/// What a phone needs to enrol.
#[derive(Serialize, ToSchema)]
pub struct QrCodeData {
    /// What the QR code holds.
    pub enrollment_url: String,
    pub token: String,
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
}

/// An enrolment token that can still be used.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "token": "dGVuYW50XzE.QVgOg43SbI1zdxW8mNtrCwKpH7fQeUaZ2yLgVjXo0Rk", "tenant_id": "tenant_1",
    "created_by": "f8c1ebd0-0c52-487d-a2a8-8b90bb90b1af", "expires_at": "2026-11-23T10:53:05.009837Z",
    "used_at": null, "valid": true,
}))]
pub struct Usable {
    pub token: String,
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    #[schema(value_type = Uuid)]
    pub created_by: UserId,
    pub expires_at: DateTime<Utc>,
    pub used_at: Option<DateTime<Utc>>,
    /// Always true: another token is an error.
    pub valid: bool,
}

impl Invitation {
    /// A body may be left out, or be null: nothing in it is required.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Invitation::default());
        }
        let told: Option<Invitation> = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
        Ok(told.unwrap_or_default())
    }
}

/// A device that wants to be let in.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({
    "token": "dGVuYW50XzE.QVgOg43SbI1zdxW8mNtrCwKpH7fQeUaZ2yLgVjXo0Rk", "device_id": "phone-1", "username": "Joe",
    "device_info": {"model": "Fairphone 5"},
}))]
pub struct Completion {
    pub token: String,
    /// The device chooses it once and keeps it.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$")]
    pub device_id: String,
    /// New among all users, or the name that the token is bound to. White space at its ends is taken off; then it has 1 to 200
    /// characters, none of them a control character.
    #[schema(
        pattern = r"^[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]([^\u0000-\u001F\u007F-\u009F]{0,198}[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000])?[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*$"
    )]
    pub username: String,
    /// Whatever the app wants to tell of the device.
    #[serde(default = "no_info")]
    pub device_info: Value,
}

/// An enrolled device.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "user_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "device_id": "phone-1", "tenant_id": "tenant_1",
    "device_token": "dGVuYW50XzE.ISUMXt-XrW3oYc6bTz1PqLm8sVhJdKeG4uNfBa0RwQi",
    "app_instructions_url": "https://sync.example/api/app-instructions",
}))]
pub struct Enrolled {
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    /// For `Authorization: Bearer <device_token>`, together with `X-Device-ID`. The server keeps a hash of it only.
    pub device_token: String,
    pub app_instructions_url: String,
}

fn no_info() -> Value {
    json!({})
}
