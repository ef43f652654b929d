package org.seracdb;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

/** Connections to the server that the runner has started, and results as plain lists. */
final class Serac {
  static final String USER = System.getProperty("seracdb.user");
  static final String PASSWORD = System.getProperty("seracdb.password");

  private Serac() {}

  /** The JDBC address, with further properties appended. */
  static String url(String more) {
    String server = System.getProperty("seracdb.uri").replaceFirst("^grpc://", "");
    return "jdbc:arrow-flight-sql://" + server + "/?useEncryption=false" + more;
  }

  static Connection connect() throws SQLException {
    return connect(USER, PASSWORD, "");
  }

  static Connection connect(String user, String password, String more) throws SQLException {
    Properties login = new Properties();
    login.put("user", user);
    login.put("password", password);
    return DriverManager.getConnection(url(more), login);
  }

  /** A namespace of its own with the table {@code points (x BIGINT NOT NULL, label TEXT)}; returns its name. */
  static String namespace(Connection connection, String name) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE NAMESPACE " + name);
      statement.executeUpdate("CREATE TABLE " + name + ".points (x BIGINT NOT NULL, label TEXT)");
    }
    return name;
  }

  /** All rows of a result as maps from column label to value; closes it. */
  static List<Map<String, Object>> rows(ResultSet result) throws SQLException {
    List<Map<String, Object>> rows = new ArrayList<>();
    try (result) {
      ResultSetMetaData columns = result.getMetaData();
      while (result.next()) {
        Map<String, Object> row = new HashMap<>();
        for (int i = 1; i <= columns.getColumnCount(); i++) {
          row.put(columns.getColumnLabel(i), result.getObject(i));
        }
        rows.add(row);
      }
    }
    return rows;
  }

  /** One column of a result as text; closes it. */
  static List<String> column(ResultSet result, String label) throws SQLException {
    List<String> values = new ArrayList<>();
    try (result) {
      while (result.next()) {
        values.add(result.getString(label));
      }
    }
    return values;
  }
}
