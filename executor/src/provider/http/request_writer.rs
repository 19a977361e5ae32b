//! Writing of requests: fields that the provider lacks are left out or refused, the rest goes into
//! its dialect.

use bytes::Bytes;
use convergio_domain::chat::{ChatField, ChatRequest, FieldSupport, NativeFields};
use convergio_kernel_c::ProviderClass;

use super::service_exchange;
use super::transport::{HttpProvider, JSON};
use crate::provider::error::ModelError;
use crate::provider::model_provider::{EncodedRequest, RequestWriter};
use crate::provider::request_adapter::{LeftOutFields, RequestAdapter, check_fetched_hosts};

impl RequestWriter for HttpProvider {
    fn write_request(&self, request: ChatRequest) -> Result<EncodedRequest, ModelError> {
        if self.config.class == ProviderClass::Local {
            check_fetched_hosts(&request)?;
        }
        if let Some(service) = &request.service {
            return service_exchange::write_service_request(self, &request.model, service);
        }
        let traits = self.effective_traits(&request.model);
        // The only place that decides about a field: traits first, then the dialect.
        let support = |field| traits.field_support(field, self.dialect.field_support(field));
        let provider = &self.config.name;
        let fit = RequestAdapter {
            provider,
            interface: self.dialect.wire_interface(),
            support: &support,
        };
        let (request, left_out) = fit.adapt_request(request)?;
        let mut body_value = self.dialect.write_request(&request, &traits);
        // Options that this provider accepts although its interface lacks them.
        let options = request.options.iter();
        let is_further =
            |field: &ChatField| self.dialect.field_support(*field) != FieldSupport::Kept;
        for (field, value) in options.filter(|(field, _)| is_further(field)) {
            body_value[field.name()] = value.clone();
        }
        NativeFields::write_into(
            request.native.as_ref(),
            self.dialect.wire_interface(),
            &mut body_value,
        );
        let body = Bytes::from(body_value.to_string());
        let headers = self.dialect.request_headers(&request);
        let LeftOutFields { fields: left_out, native_names } = left_out;
        let media_type = JSON.to_owned();
        Ok(EncodedRequest { body, media_type, headers, left_out, native_names })
    }
}
