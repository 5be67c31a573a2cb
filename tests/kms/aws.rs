//! AWS KMS, as moto's server plays it.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::{Credentials, Region, SharedCredentialsProvider},
};
use streamseal::keys::kms::{AwsConfig, ProviderName};

use super::{service::Service, *};

const REGION: &str = "eu-central-1";

/// The server, and a client that administers it.
struct Moto {
    service: Service,
    url: String,
    admin: Client,
    _dir: tempfile::TempDir,
}

impl Moto {
    async fn start() -> Self {
        let has = |name: &str| std::env::var_os(name).is_some();
        let credentials = has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY");
        assert!(
            credentials,
            "no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: any will do"
        );
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::start("moto_server", dir.path(), &["-p", "0"]);
        let url = service.says("Running on ").await;
        let credentials = Credentials::new("admin", "admin", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(&url)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self {
            service,
            url,
            admin: Client::new(&config),
            _dir: dir,
        }
    }

    /// Makes a key, and gives its ARN.
    async fn key(&self) -> String {
        let made = self.admin.create_key().send().await.unwrap();
        made.key_metadata.unwrap().arn.unwrap()
    }

    fn config(&self, key_id: &str) -> Config {
        Config {
            provider: ProviderName::Aws,
            aws: AwsConfig {
                key_id: key_id.to_owned(),
                region: REGION.to_owned(),
                endpoint_url: self.url.clone(),
            },
            ..Config::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_is_bound_to_stream_and_epoch() {
    let moto = Moto::start().await;
    let arn = moto.key().await;
    is_bound(&moto.config(&arn)).await;
    let mut by_arn_alone = moto.config(&arn);
    by_arn_alone.aws.region.clear();
    is_bound(&by_arn_alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_in_the_configuration_leaves_what_is_wrapped() {
    let moto = Moto::start().await;
    let (one, two) = (moto.key().await, moto.key().await);
    let aliasing = moto.admin.create_alias();
    let aliasing = aliasing.alias_name("alias/streams").target_key_id(&two);
    aliasing.send().await.unwrap();
    let stream = stream("a");
    let before = Proxy::start(&moto.config(&one)).await;
    let (dek, wrapped) = before.wrapped(&stream).await;
    assert_eq!(wrapped.key, one);
    let after = Proxy::start(&moto.config("alias/streams")).await;
    assert_eq!(after.unwrap(&stream, &wrapped).await.unwrap(), dek);
    // An alias may lead elsewhere tomorrow: what is kept is the key itself.
    assert_eq!(after.wrapped(&stream).await.1.key, two);
    let mut swapped = wrapped.clone();
    swapped.key = two;
    // An `IncorrectKeyException` of AWS, which moto does not know.
    is_unauthorized(after.unwrap(&stream, &swapped).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_be_used_is_denied() {
    let moto = Moto::start().await;
    let arn = moto.key().await;
    let proxy = Proxy::start(&moto.config(&arn)).await;
    let stream = stream("a");
    let (_, mut wrapped) = proxy.wrapped(&stream).await;
    wrapped.key = arn.replace("key/", "key/00");
    is_denied(proxy.unwrap(&stream, &wrapped).await);
    let nowhere = Proxy::start(&moto.config("alias/none")).await;
    let dek = Key::generate().unwrap();
    is_misconfigured(nowhere.kms.wrap(&dek, &stream, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_leaves_warm_streams_working() {
    let mut moto = Moto::start().await;
    let arn = moto.key().await;
    let proxy = Proxy::start(&moto.config(&arn)).await;
    let (warm, cold) = (stream("warm"), stream("cold"));
    let (dek, wrapped) = proxy.wrapped(&warm).await;
    let (_, cold_wrapped) = proxy.wrapped(&cold).await;
    proxy.unwrap(&warm, &wrapped).await.unwrap();
    moto.service.kill();
    assert_eq!(proxy.unwrap(&warm, &wrapped).await.unwrap(), dek);
    is_unreachable(proxy.unwrap(&cold, &cold_wrapped).await);
    let troubles = proxy.kms.troubles();
    assert_eq!(troubles.len(), 1);
    assert_eq!(troubles[0].stream, cold);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_gateway_lives_on_it() {
    let mut moto = Moto::start().await;
    let arn = moto.key().await;
    let gateway = gateway::serves(&moto.config(&arn)).await;
    moto.service.kill();
    gateway::survives(&gateway).await;
}
