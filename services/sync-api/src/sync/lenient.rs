//! What an item of an upload should be in, a schema that lets everything else pass as well out.

use std::{borrow::Cow, marker::PhantomData};

use utoipa::{
    __dev::ComposeSchema,
    ToSchema,
    openapi::{
        Ref, RefOr, Schema,
        schema::{AnyOfBuilder, ObjectBuilder, SchemaType},
    },
};

/// An item that should be a `T`; one that is not is reported in the answer, and the request succeeds.
pub struct Lenient<T>(PhantomData<T>);

impl<T: ToSchema> ComposeSchema for Lenient<T> {
    fn compose(_: Vec<RefOr<Schema>>) -> RefOr<Schema> {
        let anything = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Anything else is reported as a failed item."));
        AnyOfBuilder::new().item(Ref::from_schema_name(T::name())).item(anything).into()
    }
}

impl<T: ToSchema> ToSchema for Lenient<T> {
    /// Made unique by that of `T`.
    fn name() -> Cow<'static, str> {
        "Item".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}
