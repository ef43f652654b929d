package org.seracdb;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/**
 * SeracDB through Arrow's JDBC driver: creates a table, inserts a batch, queries, changes rows in a transaction, and
 * tells errors apart. Reads SERACDB_URI, SERACDB_USER and SERACDB_PASSWORD.
 */
public final class Example {
  private Example() {}

  public static void main(String[] args) throws SQLException {
    try (Connection connection = connect()) {
      create(connection);
      insert(connection);
      query(connection);
      transaction(connection);
      failure(connection);
    }
  }

  private static Connection connect() throws SQLException {
    String server = System.getenv("SERACDB_URI").replaceFirst("^grpc://", "");
    Properties login = new Properties();
    login.put("user", System.getenv("SERACDB_USER"));
    login.put("password", System.getenv("SERACDB_PASSWORD"));
    return DriverManager.getConnection("jdbc:arrow-flight-sql://" + server + "/?useEncryption=false", login);
  }

  private static int update(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return statement.executeUpdate(sql);
    }
  }

  private static void create(Connection connection) throws SQLException {
    update(connection, "CREATE NAMESPACE IF NOT EXISTS jdbc_example");
    update(connection, "DROP TABLE IF EXISTS jdbc_example.peaks");
    update(connection, "CREATE TABLE jdbc_example.peaks (name TEXT NOT NULL, metres INT)");
  }

  /** All rows of a batch are one commit. */
  private static void insert(Connection connection) throws SQLException {
    String[] names = {"Eiger", "Jungfrau", "Mönch"};
    int[] metres = {3967, 4158, 4107};
    String sql = "INSERT INTO jdbc_example.peaks (name, metres) VALUES (?, ?)";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      for (int i = 0; i < names.length; i++) {
        statement.setString(1, names[i]);
        statement.setInt(2, metres[i]);
        statement.addBatch();
      }
      int inserted = 0;
      for (int count : statement.executeBatch()) {
        inserted += count;
      }
      System.out.println("inserted " + inserted);
    }
  }

  private static void query(Connection connection) throws SQLException {
    String sql = "SELECT name, metres FROM jdbc_example.peaks WHERE metres > ? ORDER BY metres DESC";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setInt(1, 4000);
      try (ResultSet rows = statement.executeQuery()) {
        while (rows.next()) {
          System.out.println(rows.getString("name") + " " + rows.getInt("metres"));
        }
      }
    }
  }

  /** By text: the driver's setAutoCommit, commit and rollback do nothing. */
  private static void transaction(Connection connection) throws SQLException {
    update(connection, "BEGIN");
    update(connection, "DELETE FROM jdbc_example.peaks");
    update(connection, "ROLLBACK");
    while (true) {
      update(connection, "BEGIN");
      int count = update(connection, "UPDATE jdbc_example.peaks SET metres = 4110 WHERE name = 'Mönch'");
      try {
        update(connection, "COMMIT");
      } catch (SQLException e) {
        // Another commit changed the same row first: all of it is undone, and can be run again.
        if (said(e).contains("changed by another commit first")) {
          continue;
        }
        throw e;
      }
      System.out.println("updated " + count);
      return;
    }
  }

  private static void failure(Connection connection) throws SQLException {
    try {
      update(connection, "DELETE FROM jdbc_example.paeks");
    } catch (SQLException e) {
      if (said(e).contains("NOT_FOUND")) {
        System.out.println("not found");
        return;
      }
      throw e;
    }
    throw new SQLException("a table that is not there was changed");
  }

  /** The driver gives no SQLSTATE; the code is in the text of a cause. */
  private static String said(Throwable error) {
    StringBuilder all = new StringBuilder();
    for (Throwable t = error; t != null; t = t.getCause()) {
      all.append(t).append('\n');
    }
    return all.toString();
  }
}
