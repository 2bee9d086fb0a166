//! Every path of the public port.

use actix_web::web::{ServiceConfig, delete, get, post, put, resource, to};

use super::{
    devices, disabling, enrollment, error::ApiError, health, instructions, login, messages, sse, sync, users,
};

pub fn configure(service: &mut ServiceConfig) {
    service
        .service(resource("/health").route(get().to(health::health)))
        .service(resource("/api/auth/login").route(post().to(login::login)))
        .service(resource("/api/enrollment/create").route(post().to(enrollment::create)))
        .service(resource("/api/enrollment/complete").route(post().to(enrollment::complete)))
        .service(resource("/api/enrollment/{token}").route(get().to(enrollment::get)))
        .service(resource("/api/enrollment/{token}/qr.svg").route(get().to(enrollment::qr_code)))
        .service(resource("/api/app-instructions").route(get().to(instructions::instructions)))
        .service(resource("/api/sync/incoming").route(get().to(sync::incoming)))
        .service(resource("/api/sync/status").route(get().to(sync::status)))
        .service(resource("/api/sync/outgoing").route(post().to(sync::outgoing)))
        .service(resource("/api/users").route(get().to(users::list)))
        .service(resource("/api/users/{id}").route(get().to(users::get)))
        .service(resource("/api/users/{id}/disable").route(post().to(disabling::disable)))
        .service(resource("/api/users/{id}/enable").route(post().to(disabling::enable)))
        .service(resource("/api/messages").route(get().to(messages::list)).route(post().to(messages::send)))
        .service(resource("/api/messages/unread-count").route(get().to(messages::unread_count)))
        .service(resource("/api/messages/{id}").route(get().to(messages::get)))
        .service(resource("/api/messages/{id}/read").route(put().to(messages::mark_read)))
        .service(resource("/api/devices").route(get().to(devices::list)))
        .service(resource("/api/devices/{id}").route(delete().to(devices::revoke)))
        .service(resource("/api/sse/ticket").route(post().to(sse::ticket)))
        .service(resource("/sse/mobile/{device_id}").route(get().to(sse::mobile)))
        .service(resource("/sse/web/{user_id}").route(get().to(sse::web)))
        .default_service(to(async || Err::<&str, _>(ApiError::not_found())));
}
