package org.seracdb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.junit.jupiter.api.Test;

/** Logging in, and what URLs carry. */
class ConnectionTest {
  private static void works(Connection connection) throws SQLException {
    try (connection;
        Statement statement = connection.createStatement();
        ResultSet result = statement.executeQuery("SELECT 42")) {
      assertTrue(result.next());
      assertEquals(42, result.getInt(1));
    }
  }

  @Test
  void theDriverIsTheOneAskedFor() throws SQLException {
    try (Connection connection = Serac.connect()) {
      assertEquals(System.getProperty("driver.version"), connection.getMetaData().getDriverVersion());
    }
  }

  @Test
  void connects() throws SQLException {
    works(Serac.connect());
  }

  @Test
  void userAndPasswordMayBeInTheUrl() throws SQLException {
    String password = Serac.PASSWORD.replace(" ", "%20");
    works(DriverManager.getConnection(Serac.url("&user=" + Serac.USER + "&password=" + password)));
  }

  /** The driver turns properties it does not know into headers. */
  @Test
  void unknownPropertiesAreAccepted() throws SQLException {
    works(Serac.connect(Serac.USER, Serac.PASSWORD, "&something=else&database=x&long=" + "v".repeat(8000)));
  }

  @Test
  void aWrongPasswordIsRefused() {
    SQLException wrong = assertThrows(SQLException.class, () -> Serac.connect(Serac.USER, "wrong", ""));
    SQLException unknown = assertThrows(SQLException.class, () -> Serac.connect("nobody", "wrong", ""));
    assertEquals(wrong.getMessage().replace(Serac.USER, ""), unknown.getMessage().replace("nobody", ""));
  }

  @Test
  void manyConnections() throws SQLException {
    for (int i = 0; i < 20; i++) {
      works(Serac.connect());
    }
  }
}
