package org.seracdb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The server that speaks TLS only, and only with whom shows it a certificate. */
class TlsTest {
  private static final String URL =
      System.getenv("SERACDB_TLS_URI").replaceFirst("^grpc\\+tls://", "jdbc:arrow-flight-sql://");
  private static final Path FILES = Path.of(System.getenv("SERACDB_TLS_DIR"));
  private static final String TRUST = "&tlsRootCerts=" + FILES.resolve("ca.pem");
  private static final String SHOWN =
      "&clientCertificate=" + FILES.resolve("client.pem") + "&clientKey=" + FILES.resolve("client.key");

  private static int answer(String password, String more) throws SQLException {
    Properties login = new Properties();
    login.put("user", Serac.USER);
    login.put("password", password);
    try (Connection connection = DriverManager.getConnection(URL + "/?" + more, login);
        Statement statement = connection.createStatement();
        ResultSet result = statement.executeQuery("SELECT 6 * 7")) {
      assertTrue(result.next());
      return result.getInt(1);
    }
  }

  @Test
  void connects() throws SQLException {
    assertEquals(42, answer(Serac.PASSWORD, "useEncryption=true" + TRUST + SHOWN));
  }

  @Test
  void aTrustStoreMayHoldTheCa(@TempDir Path folder) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    try (FileInputStream ca = new FileInputStream(FILES.resolve("ca.pem").toFile())) {
      store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(ca));
    }
    Path file = folder.resolve("trust.p12");
    try (FileOutputStream out = new FileOutputStream(file.toFile())) {
      store.store(out, "changeit".toCharArray());
    }
    String trust = "&useSystemTrustStore=false&trustStore=" + file + "&trustStorePassword=changeit";
    assertEquals(42, answer(Serac.PASSWORD, "useEncryption=true" + trust + SHOWN));
  }

  @Test
  void aCertificateReplacesNoPassword() {
    SQLException wrong =
        assertThrows(SQLException.class, () -> answer("wrong", "useEncryption=true" + TRUST + SHOWN));
    assertTrue(wrong.getMessage().contains("password"), wrong.getMessage());
  }

  @Test
  void whoShowsNoneIsTurnedAway() {
    for (String more : new String[] {"useEncryption=true" + TRUST, "useEncryption=true", "useEncryption=false"}) {
      SQLException refused = assertThrows(SQLException.class, () -> answer(Serac.PASSWORD, more));
      assertFalse(refused.getMessage().contains("password"), refused.getMessage());
    }
  }
}
