//! AWS Key Management Service, through its SDK.
//!
//! What the SDK makes of a data key on its way (the request's text, the answer's) is its own: it is freed when
//! the call is over, without being overwritten first. The program's allocator does that (see `main`), and
//! connections are kept for a bounded time ([`IDLE_TIMEOUT`]).

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::{
        ConfigBag, Intercept, Region, RuntimeComponents,
        http::HttpResponse,
        interceptors::{
            BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
        },
        retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    primitives::Blob,
};
use aws_smithy_http_client::tls;
use aws_smithy_types::body::SdkBody;
use base64ct::{Base64, Encoding as _};
use http_body_util::Limited;
use zeroize::Zeroizing;

use super::{
    CONNECT_TIMEOUT, Error, IDLE_TIMEOUT, MAX_ANSWER_BYTES, MAX_CALLS, WrappedDek,
    config::{AwsConfig, is_private},
    context::Context,
    retry::Failed,
};
use crate::{crypto::Key, telemetry::with_causes};

/// What the SDK says where none of the usual sources has credentials.
const NO_CREDENTIALS: &str = "no providers in chain provided credentials";

/// What AWS STS says to a role that it does not hand out, or to a token that it does not take for one.
const NO_ROLE: [&str; 3] = ["AccessDenied", "ExpiredToken", "InvalidIdentityToken"];

/// What is said of an endpoint that the AWS environment names, and that is not private.
const IN_CLEAR: &str = "the endpoint of AWS KMS is not https://";
/// What is said of an answer that cannot be read.
const NO_ANSWER: &str = "its answer is not AWS KMS's";

/// One key of AWS KMS.
pub(super) struct Aws {
    client: Client,
    key_id: String,
}

impl Aws {
    /// Finds the region and where credentials come from.
    pub(super) async fn load(config: &AwsConfig) -> Result<Self, Error> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = config.region() {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let found = loader.load().await;
        if found.region().is_none() {
            let problem = "kms.aws.region: not set, and the AWS environment names none";
            return Err(Error::Misconfigured(problem.into()));
        }
        Ok(Self::new(config, &found))
    }

    pub(super) fn new(config: &AwsConfig, found: &SdkConfig) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_CALLS)
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::AwsLc,
            ))
            .build_https();
        let times = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        let mut builder = aws_sdk_kms::config::Builder::from(found)
            .http_client(http)
            .timeout_config(times)
            .retry_config(RetryConfig::disabled())
            .interceptor(Guard);
        if !config.endpoint_url.is_empty() {
            builder = builder.endpoint_url(&config.endpoint_url);
        }
        Self {
            client: Client::from_conf(builder.build()),
            key_id: config.key_id.clone(),
        }
    }

    pub(super) async fn wrap(&self, dek: &Key, context: Context<'_>) -> Result<WrappedDek, Failed> {
        let dek = Base64::decode_vec(&dek.to_base64());
        let dek = dek.map_err(|_| Error::Misconfigured("a key that is none".into()))?;
        let mut call = self.client.encrypt().key_id(&self.key_id);
        for (name, value) in context.pairs() {
            call = call.encryption_context(name, value);
        }
        let answer = call.plaintext(Blob::new(dek)).send().await;
        let answer = answer.map_err(failed)?;
        match (answer.key_id, answer.ciphertext_blob) {
            (Some(key), Some(blob)) => Ok(WrappedDek {
                key,
                blob: blob.into_inner(),
            }),
            _ => Err(Error::Unreachable("its answer holds no wrapped key".into()).into()),
        }
    }

    pub(super) async fn unwrap(
        &self,
        key: &str,
        blob: &[u8],
        context: Context<'_>,
    ) -> Result<Key, Failed> {
        let mut call = self.client.decrypt().key_id(key);
        for (name, value) in context.pairs() {
            call = call.encryption_context(name, value);
        }
        let answer = call.ciphertext_blob(Blob::new(blob)).send().await;
        let plaintext = answer.map_err(failed)?.plaintext;
        let plaintext = plaintext.map(|blob| Zeroizing::new(blob.into_inner()));
        let plaintext =
            plaintext.ok_or_else(|| Error::Unreachable("its answer holds no plaintext".into()))?;
        let dek = <&[u8; 32]>::try_from(plaintext.as_slice());
        let dek =
            dek.map_err(|_| Error::InvalidCiphertext("it holds no key of 32 bytes".into()))?;
        Ok(Key::from_bytes(*dek))
    }
}

/// What the SDK does not see to: no request leaves in clear, whichever endpoint the AWS environment names, and no
/// answer is read beyond [`MAX_ANSWER_BYTES`].
#[derive(Debug)]
struct Guard;

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "Guard"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match is_private(&context.request().uri().parse()?) {
            true => Ok(()),
            false => Err(IN_CLEAR.into()),
        }
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        let body = Limited::new(answer.take_body(), MAX_ANSWER_BYTES);
        *answer.body_mut() = SdkBody::from_body_1_x(body);
        Ok(())
    }
}

/// What a failed call means.
fn failed<E: ProvideErrorMetadata>(error: SdkError<E, HttpResponse>) -> Failed {
    match &error {
        SdkError::ServiceError(service) => {
            let (said, raw) = (service.err(), service.raw());
            let reason = said.message().unwrap_or_default();
            match raw.status().as_u16() {
                200..300 => Error::Unreachable(NO_ANSWER.into()).into(),
                status => match refused(said.code().unwrap_or_default(), status, reason) {
                    Error::Unreachable(reason) => {
                        Failed::later(reason, raw.headers().get("retry-after"))
                    }
                    error => error.into(),
                },
            }
        }
        SdkError::DispatchFailure(failure) => {
            let reason = failure.as_connector_error().map(|error| with_causes(error));
            let reason = reason.unwrap_or_default();
            let says = |words: &[&str]| words.iter().any(|words| reason.contains(words));
            if says(&[NO_CREDENTIALS, IN_CLEAR]) {
                Error::Misconfigured(reason.into()).into()
            } else if says(&NO_ROLE) {
                Error::Unauthorized(reason.into()).into()
            } else {
                Failed::lost(reason.into())
            }
        }
        SdkError::TimeoutError(_) => Failed::lost("no answer in time".into()),
        SdkError::ConstructionFailure(_) => {
            Error::Misconfigured("no request to send".into()).into()
        }
        // Not what the error says: it may quote the answer.
        _ => Error::Unreachable(NO_ANSWER.into()).into(),
    }
}

/// What a refusal means. The names are those of the service's reference (`Encrypt`, `Decrypt`, "Common
/// Errors").
fn refused(code: &str, status: u16, said: &str) -> Error {
    let reason = format!("{code}: {said}").into();
    match code {
        "InvalidCiphertextException" | "IncorrectKeyException" => Error::InvalidCiphertext(reason),
        "DisabledException" | "KMSInvalidStateException" | "NotFoundException" => {
            Error::Denied(reason)
        }
        // The credentials, the role, or the key's policy for the role.
        "AccessDeniedException"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Error::Unauthorized(reason),
        "DependencyTimeoutException"
        | "InternalFailure"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "LimitExceededException"
        | "RequestExpired"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => Error::Unreachable(reason),
        _ if status >= 500 || status == 429 => Error::Unreachable(reason),
        _ if status == 401 || status == 403 => Error::Unauthorized(reason),
        _ if (300..400).contains(&status) => {
            Error::Misconfigured("it redirects to another server".into())
        }
        _ => Error::Misconfigured(reason),
    }
}
