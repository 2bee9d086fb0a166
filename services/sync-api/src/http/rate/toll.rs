//! What one request has taken from whose bucket: a stranger's until it has proven whose it is.

use std::{cell::Cell, rc::Rc, sync::Arc};

use actix_web::{HttpMessage, HttpRequest};
use posduif_model::{DeviceId, TenantId, UserId};

use super::{
    address::Address,
    level::{Exhausted, Level},
    rates::{By, Rates},
};
use crate::{code::Code, credential::jwt::Subject, http::error::ApiError};

/// Kept with the request while it is answered.
#[derive(Debug)]
pub struct Toll {
    pub rates: Arc<Rates>,
    pub address: Address,
    /// What the answer tells.
    told: Cell<Option<Level>>,
    /// A request pays once for its address.
    has_paid: Cell<bool>,
}

impl Toll {
    pub fn new(rates: Arc<Rates>, address: Address) -> Self {
        Toll { rates, address, told: Cell::new(None), has_paid: Cell::new(false) }
    }

    /// That of a request, where there are limits.
    pub fn of(request: &HttpRequest) -> Option<Rc<Toll>> {
        request.extensions().get::<Rc<Toll>>().cloned()
    }

    /// The caller is not known, or not yet.
    pub fn stranger(&self) -> Result<(), ApiError> {
        if self.has_paid.replace(true) {
            return Ok(());
        }
        self.tell(self.rates.stranger(self.address))
    }

    pub fn device(&self, tenant: &TenantId, device: &DeviceId, user: UserId) -> Result<(), ApiError> {
        self.tell(self.rates.device(tenant, device, user))
    }

    /// A signature proves whose log-in it is, before anybody is asked whether it has been ended.
    pub fn web_user(&self, log_in: &Subject) -> Result<(), ApiError> {
        self.tell(self.rates.web_user(log_in))
    }

    /// What was decided of a try to get in.
    pub fn judge<T>(&self, by: By, outcome: Result<T, Exhausted>) -> Result<T, ApiError> {
        self.rates.counted(by, outcome).map_err(|exhausted| self.refuse(exhausted))
    }

    /// Whoever was asked last is who is told of.
    pub fn tell(&self, outcome: Result<Level, Exhausted>) -> Result<(), ApiError> {
        match outcome {
            Ok(level) => {
                self.told.set(Some(level));
                Ok(())
            }
            Err(exhausted) => Err(self.refuse(exhausted)),
        }
    }

    fn refuse(&self, exhausted: Exhausted) -> ApiError {
        self.told.set(Some(exhausted.level));
        let message = "too many requests; ask again after as many seconds as Retry-After says";
        ApiError::new(Code::RateLimited, message).retry_after(exhausted.retry_after)
    }

    pub fn told(&self) -> Option<Level> {
        self.told.get()
    }
}

/// Makes a proven caller pay from its own bucket, and one that is refused from its address's.
pub fn settle<T>(
    request: &HttpRequest,
    outcome: Result<T, ApiError>,
    pay: impl FnOnce(&Toll, &T) -> Result<(), ApiError>,
) -> Result<T, ApiError> {
    let Some(toll) = Toll::of(request) else { return outcome };
    match &outcome {
        Ok(proven) => pay(&toll, proven)?,
        Err(error) if error.code() == Code::Unauthorized => toll.stranger()?,
        Err(_) => {}
    }
    outcome
}
