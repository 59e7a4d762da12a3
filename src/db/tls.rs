//! TLS to PostgreSQL with the meaning that libpq gives to `sslmode` and `sslrootcert`.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres::{Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How far a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    /// Without TLS, and with it when the server insists.
    Allow,
    /// With TLS, and without it when the server has none.
    Prefer,
    /// With TLS; whose certificate it is, is not asked.
    Require,
    /// The certificate's chain is checked.
    VerifyCa,
    /// The certificate's chain and name are checked.
    VerifyFull,
}

impl SslMode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" | "false" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" | "true" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// Whose signature on the server's certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootCertificates {
    System,
    File(PathBuf),
}

/// What `DATABASE_URL` says of TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsSettings {
    pub mode: Option<SslMode>,
    pub roots: Option<RootCertificates>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// Returns the mode that holds: as in libpq, the system's roots ask for a full check, and `require` with a file of
    /// roots checks the chain.
    pub(super) fn effective_mode(&self) -> SslMode {
        match (self.mode, &self.roots) {
            (None, Some(RootCertificates::System)) => SslMode::VerifyFull,
            (Some(SslMode::Require), Some(RootCertificates::File(_))) => SslMode::VerifyCa,
            (mode, _) => mode.unwrap_or(SslMode::Prefer),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let weak = self.effective_mode() != SslMode::VerifyFull;
        if weak && self.roots == Some(RootCertificates::System) {
            return Err("sslrootcert=system needs sslmode=verify-full".into());
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("sslcert and sslkey belong together".into());
        }
        Ok(())
    }

    /// Returns what makes TLS connections in this way.
    ///
    /// # Errors
    /// A file that can't be read or holds no certificate.
    pub(super) fn connector(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.effective_mode() {
            SslMode::VerifyFull => self.chain_verifier(&provider)?,
            SslMode::VerifyCa => Arc::new(Lenient { chain: Some(self.chain_verifier(&provider)?), provider }),
            _ => Arc::new(Lenient { chain: None, provider }),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("sslkey: {error}"))?;
                let chain = read_certificates("sslcert", certificate)?;
                builder.with_client_auth_cert(chain, key)
            }
            _ => Ok(builder.with_no_client_auth()),
        }
        .map_err(|error| format!("sslcert and sslkey: {error}"))?;
        // Servers since 17 look for it, and `sslnegotiation=direct` needs it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(TlsConnector(MakeRustlsConnect::new(config)))
    }

    fn chain_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut store = RootCertStore::empty();
        match &self.roots {
            Some(RootCertificates::File(path)) => {
                for certificate in read_certificates("sslrootcert", path)? {
                    store.add(certificate).map_err(|error| format!("sslrootcert: {error}"))?;
                }
            }
            // libpq wants a file here; the system's roots are as strict and need no copy of them.
            Some(RootCertificates::System) | None => {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
            .build()
            .map_err(|error| format!("sslrootcert: {error}"))
    }
}

fn read_certificates(name: &str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{name}: the file holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Makes TLS connections.
#[derive(Clone)]
pub(super) struct TlsConnector(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for TlsConnector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A socket and a bare address come without a name. No certificate bears this one.
        let host = if host.is_empty() { "no-name.invalid" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host)
    }
}

/// Asks less than the whole check: only the chain, or nothing. The handshake's own signature is always checked.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is compared last, so that this error says that the chain is good.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_mean_what_libpq_means() {
        let mode = |mode, roots| {
            let settings = TlsSettings { mode, roots, ..TlsSettings::default() };
            settings.effective_mode()
        };
        let file = Some(RootCertificates::File("ca.pem".into()));
        assert_eq!(mode(None, None), SslMode::Prefer);
        assert_eq!(mode(None, Some(RootCertificates::System)), SslMode::VerifyFull);
        assert_eq!(mode(Some(SslMode::Require), file.clone()), SslMode::VerifyCa);
        assert_eq!(mode(Some(SslMode::Prefer), file), SslMode::Prefer);
    }

    #[test]
    fn missing_root_file_is_told() {
        let settings = TlsSettings {
            mode: Some(SslMode::VerifyFull),
            roots: Some(RootCertificates::File("/nowhere/ca.pem".into())),
            ..TlsSettings::default()
        };
        assert!(settings.connector().is_err_and(|error| error.starts_with("sslrootcert: ")));
    }
}
