//! Projects and their API keys: a proxy that lets clients in by API key alone, and keys to come in with.

use std::{fs, sync::Arc};

use streamseal::{
    clock::Clock,
    config::Config,
    crypto::{ApiKey, MasterKey, Pepper},
    keys::{ProjectRule, Projects},
    project::Scopes,
    proxy::gate::{Gate, Pass},
    server::Authenticate,
    store::{ApiKeyEntry, ApiKeyState, Change, ProjectEntry},
};

use super::{Ask, Stack, base64};

/// An API key as its owner has it.
#[derive(Debug, Clone)]
pub struct Token {
    /// Whose.
    pub project: String,
    /// What it is called.
    pub id: String,
    /// The key itself.
    pub text: String,
}

/// Declares a project whose streams these globs match, with a pepper of its own beside the config store, and
/// lets clients in by API key alone. For the change of [`Stack::with`].
pub fn project(config: &mut Config, name: &str, globs: &[&str]) {
    let pepper_file = config.store.path.with_file_name(format!("{name}.pepper"));
    fs::write(&pepper_file, base64(&pepper(name))).unwrap();
    config.listen.authenticate = Authenticate::ApiKey;
    config.projects.push(ProjectRule {
        name: name.parse().unwrap(),
        r#match: globs.iter().map(|&glob| glob.to_owned()).collect(),
        access_token_file: Default::default(),
        pepper_file: pepper_file.into(),
    });
}

/// The pepper that [`project`] gives a project.
pub fn pepper(name: &str) -> [u8; 32] {
    blake3::derive_key("pepper for tests", name.as_bytes())
}

impl Token {
    /// The request with this API key.
    pub fn on(&self, ask: Ask) -> Ask {
        ask.header("authorization", format!("Bearer {}", self.text))
    }

    fn parsed(&self) -> ApiKey {
        ApiKey::parse(self.text.as_bytes()).unwrap()
    }

    /// The master key in it, which is of this epoch.
    pub fn master(&self, mk_epoch: u32) -> MasterKey {
        let pepper = Pepper::new(streamseal::crypto::Key::from_bytes(pepper(&self.project)));
        let master = self.parsed().master_key(&pepper, &self.project, mk_epoch);
        master.expect("it holds no master key of this epoch")
    }
}

impl Stack {
    /// Creates a project that the configuration declares; its first API key.
    pub async fn create_project(&self, name: &str) -> Token {
        let made = self.proxy().create_project(&name.parse().unwrap()).await;
        let made = made.map_err(|error| error.to_string()).unwrap();
        Token {
            project: name.to_owned(),
            id: made.id,
            text: made.api_key.as_str().to_owned(),
        }
    }

    /// What is recorded of a project.
    pub async fn project_entry(&self, name: &str) -> ProjectEntry {
        let name = name.parse().unwrap();
        let found = self.config_store().project(&name).await.unwrap();
        found.entry.expect("nothing is recorded").as_ref().clone()
    }

    /// Changes what is recorded of a project, as another command would.
    pub async fn change_project(&self, name: &str, change: impl Fn(&mut ProjectEntry)) {
        let name = name.parse().unwrap();
        let found = self.config_store().project(&name).await.unwrap();
        let mut entry = found.entry.unwrap().as_ref().clone();
        change(&mut entry);
        let change = Change::Project {
            name,
            expected: found.revision,
            entry: Some(entry),
        };
        self.config_store().commit(vec![change]).await.unwrap();
    }

    /// Changes one API key's row.
    pub async fn change_key(&self, token: &Token, change: impl Fn(&mut ApiKeyEntry)) {
        let of = |entry: &mut ProjectEntry| {
            let mut rows = entry.api_keys.iter_mut();
            change(rows.find(|row| row.id == token.id).unwrap());
        };
        self.change_project(&token.project, of).await;
    }

    /// Revokes an API key.
    pub async fn revoke(&self, token: &Token) {
        let at = streamseal::clock::now_ms();
        self.change_key(token, |row| row.state = ApiKeyState::Revoked { at })
            .await;
    }

    /// Another API key of the project, with these scopes.
    pub async fn issue(&self, token: &Token, id: &str, scopes: Scopes) -> Token {
        let mk_epoch = self.project_entry(&token.project).await.mk_epoch;
        let master = token.master(mk_epoch);
        let pepper = Pepper::new(streamseal::crypto::Key::from_bytes(pepper(&token.project)));
        let issued = ApiKey::issue(&pepper, &token.project, mk_epoch, &master);
        let (key, credentials) = issued.unwrap();
        let row = ApiKeyEntry {
            id: id.to_owned(),
            label: String::new(),
            lookup: credentials.lookup,
            verify: credentials.verify,
            mk_epoch,
            scopes,
            created_at: streamseal::clock::now_ms(),
            expires_at: None,
            state: ApiKeyState::Active,
        };
        self.change_project(&token.project, |entry| entry.api_keys.push(row.clone()))
            .await;
        Token {
            project: token.project.clone(),
            id: id.to_owned(),
            text: key.to_text().as_str().to_owned(),
        }
    }

    /// What an API key lets its owner in as.
    pub async fn pass(&self, token: &Token) -> Arc<Pass> {
        let projects = Projects::compile(&self.config.projects).unwrap();
        let gate = Gate::new(Arc::clone(self.config_store()), Clock::system());
        let mut headers = http::HeaderMap::new();
        let bearer = format!("Bearer {}", token.text).parse().unwrap();
        headers.insert("authorization", bearer);
        let pass = gate.admit(&projects, &headers).await;
        Arc::new(pass.map_err(|error| error.told()).unwrap())
    }
}
