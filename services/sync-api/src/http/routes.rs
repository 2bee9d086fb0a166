//! Every path of the public port, declared once for the server and for the document that describes it.

use actix_web::web::{ServiceConfig, to};

use super::{
    devices, disabling, docs, enrollment,
    error::ApiError,
    health, instructions, login, messages,
    route::{Resources, Table},
    sse, sync, users,
};
use crate::code::Code;

/// Adds every route to the table. The method and the path of each stand at its handler.
pub fn declare(table: &mut impl Table) {
    use Code::{
        Conflict, CursorExpired, DatabaseError, EmptyMessage, Forbidden, InvalidRecipient, InvalidToken,
        NotFound, RedisError, SyncError, Unauthorized,
    };
    table.route::<health::__path_health, _, _>(health::health, &[]);
    table.route::<login::__path_login, _, _>(login::login, &[Unauthorized, DatabaseError]);

    table.route::<enrollment::__path_create, _, _>(enrollment::create, &[NotFound]);
    table.route::<enrollment::__path_complete, _, _>(
        enrollment::complete,
        &[InvalidToken, Conflict, DatabaseError, RedisError],
    );
    table.route::<enrollment::__path_get, _, _>(enrollment::get, &[InvalidToken, NotFound, DatabaseError]);
    table.route::<enrollment::__path_qr_code, _, _>(enrollment::qr_code, &[InvalidToken, NotFound]);
    table.route::<instructions::__path_instructions, _, _>(instructions::instructions, &[SyncError]);

    table.route::<sync::__path_incoming, _, _>(sync::incoming, &[CursorExpired, SyncError, RedisError]);
    table.route::<sync::__path_status, _, _>(sync::status, &[RedisError]);
    table.route::<sync::__path_outgoing, _, _>(sync::outgoing, &[Conflict]);

    table.route::<users::__path_list, _, _>(users::list, &[]);
    table.route::<users::__path_get, _, _>(users::get, &[NotFound]);

    table.route::<disabling::__path_disable, _, _>(
        disabling::disable,
        &[Forbidden, NotFound, Conflict, RedisError],
    );
    table.route::<disabling::__path_enable, _, _>(
        disabling::enable,
        &[Forbidden, NotFound, Conflict, RedisError],
    );

    table.route::<messages::__path_list, _, _>(messages::list, &[]);
    table.route::<messages::__path_send, _, _>(messages::send, &[EmptyMessage, InvalidRecipient, Conflict]);
    table.route::<messages::__path_unread_count, _, _>(messages::unread_count, &[]);
    table.route::<messages::__path_get, _, _>(messages::get, &[NotFound]);
    table.route::<messages::__path_mark_read, _, _>(messages::mark_read, &[Forbidden, NotFound]);

    table.route::<devices::__path_list, _, _>(devices::list, &[]);
    table.route::<devices::__path_revoke, _, _>(devices::revoke, &[NotFound, RedisError]);

    table.route::<sse::__path_ticket, _, _>(sse::ticket, &[RedisError]);
    table.route::<sse::__path_mobile, _, _>(sse::mobile, &[NotFound, SyncError, RedisError]);
    table.route::<sse::__path_web, _, _>(sse::web, &[NotFound, SyncError, RedisError]);
}

/// The routes that describe the others, where the operator wants them to be served.
pub fn declare_docs(table: &mut impl Table) {
    table.route::<docs::__path_document, _, _>(docs::document, &[Code::NotFound]);
    table.route::<docs::__path_page, _, _>(docs::page, &[Code::NotFound]);
    table.route::<docs::__path_file, _, _>(docs::file, &[Code::NotFound]);
}

pub fn configure(service: &mut ServiceConfig, with_docs: bool) {
    let mut resources = Resources::default();
    declare(&mut resources);
    if with_docs {
        declare_docs(&mut resources);
    }
    resources.register(service);
    service.default_service(to(async || Err::<&str, _>(ApiError::not_found())));
}

#[cfg(test)]
mod tests {
    use std::any::type_name;

    use actix_web::{FromRequest, Handler, Responder};

    use super::*;
    use crate::http::route::Described;

    #[derive(Default)]
    struct Names(Vec<(&'static str, &'static str)>);

    impl Table for Names {
        fn route<D, F, A>(&mut self, _: F, _: &[Code])
        where
            D: Described,
            F: Handler<A>,
            F::Output: Responder + 'static,
            A: FromRequest + 'static,
        {
            self.0.push((type_name::<F>(), type_name::<D>()));
        }
    }

    #[test]
    fn every_handler_has_its_own_description() {
        let mut names = Names::default();
        declare(&mut names);
        declare_docs(&mut names);
        assert!(names.0.len() > 20, "{names:?}", names = names.0);
        for (handler, description) in names.0 {
            assert_eq!(description.replace("__path_", ""), handler);
        }
    }
}
