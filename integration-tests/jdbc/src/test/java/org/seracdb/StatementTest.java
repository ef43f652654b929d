package org.seracdb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.util.Calendar;
import java.util.TimeZone;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Statements and prepared statements: rows and exact counts. */
class StatementTest {
  private static Connection connection;

  @BeforeAll
  static void open() throws SQLException {
    connection = Serac.connect();
    Serac.namespace(connection, "jdbc_statements");
  }

  @AfterAll
  static void close() throws SQLException {
    connection.close();
  }

  @BeforeEach
  void empty() throws SQLException {
    update("DELETE FROM jdbc_statements.points");
  }

  private static int update(String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return statement.executeUpdate(sql);
    }
  }

  private static long count(String where) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet result = statement.executeQuery("SELECT count(*) FROM jdbc_statements.points WHERE " + where)) {
      assertTrue(result.next());
      return result.getLong(1);
    }
  }

  @Test
  void countsAreExact() throws SQLException {
    assertEquals(3, update("INSERT INTO jdbc_statements.points (x, label) VALUES (1, 'a'), (2, 'b'), (3, NULL)"));
    assertEquals(2, update("UPDATE jdbc_statements.points SET label = 'z' WHERE x >= 2"));
    assertEquals(0, update("UPDATE jdbc_statements.points SET label = 'z' WHERE x > 99"));
    update("STORAGE FLUSH TABLE jdbc_statements.points");
    assertEquals(1, update("DELETE FROM jdbc_statements.points WHERE x = 1"));
    assertEquals(2, count("label = 'z'"));
  }

  @Test
  void executeTellsWritesFromQueries() throws SQLException {
    try (Statement statement = connection.createStatement()) {
      assertFalse(statement.execute("INSERT INTO jdbc_statements.points (x) VALUES (7)"));
      assertEquals(1, statement.getUpdateCount());
      assertTrue(statement.execute("SELECT x, label FROM jdbc_statements.points"));
      ResultSet result = statement.getResultSet();
      assertTrue(result.next());
      assertEquals(7, result.getLong("x"));
      assertNull(result.getString("label"));
      assertTrue(result.wasNull());
      assertFalse(result.next());
      assertFalse(statement.execute("UPDATE jdbc_statements.points SET x = x + 1"));
      assertEquals(1, statement.getUpdateCount());
    }
    assertEquals(1, count("x = 8"), "the update ran once");
  }

  @Test
  void preparedSelectAndUpdate() throws SQLException {
    try (PreparedStatement insert =
        connection.prepareStatement("INSERT INTO jdbc_statements.points (x, label) VALUES (?, ?)")) {
      for (int i = 0; i < 10; i++) {
        insert.setInt(1, i);
        if (i % 3 == 0) {
          insert.setNull(2, Types.VARCHAR);
        } else {
          insert.setString(2, "it's " + i);
        }
        assertEquals(1, insert.executeUpdate());
      }
    }
    try (PreparedStatement select =
        connection.prepareStatement("SELECT label FROM jdbc_statements.points WHERE x = ? AND label LIKE ?")) {
      for (int i : new int[] {1, 2, 4}) {
        select.setLong(1, i);
        select.setString(2, "it%");
        try (ResultSet result = select.executeQuery()) {
          assertTrue(result.next());
          assertEquals("it's " + i, result.getString(1));
          assertFalse(result.next());
        }
      }
    }
    try (PreparedStatement change =
        connection.prepareStatement("UPDATE jdbc_statements.points SET label = ? WHERE x > ?")) {
      change.setString(1, "changed");
      change.setInt(2, 4);
      assertEquals(5, change.executeUpdate());
    }
    assertEquals(5, count("label = 'changed'"));
  }

  @Test
  void batches() throws SQLException {
    try (PreparedStatement insert =
        connection.prepareStatement("INSERT INTO jdbc_statements.points (x, label) VALUES (?, ?)")) {
      for (int i = 0; i < 100; i++) {
        insert.setLong(1, i);
        insert.setString(2, "b" + i);
        insert.addBatch();
      }
      insert.executeBatch();
    }
    assertEquals(100, count("label LIKE 'b%'"));
  }

  @Test
  void typesGoInAndOut() throws SQLException {
    update(
        "CREATE TABLE jdbc_statements.typed (i INT, b BIGINT, d DOUBLE, f REAL, t BOOLEAN, n DECIMAL(12, 3),"
            + " s TEXT, day DATE, at TIMESTAMP)");
    Calendar utc = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
    Instant day = Instant.parse("2026-02-28T00:00:00Z");
    Timestamp at = Timestamp.from(Instant.parse("2026-02-28T12:34:56.789Z"));
    try (PreparedStatement insert =
        connection.prepareStatement("INSERT INTO jdbc_statements.typed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
      insert.setInt(1, Integer.MIN_VALUE);
      insert.setLong(2, Long.MAX_VALUE);
      insert.setDouble(3, 0.1);
      insert.setFloat(4, 1.5f);
      insert.setBoolean(5, true);
      insert.setBigDecimal(6, new BigDecimal("-123456.789"));
      insert.setString(7, "Gletscher ❄");
      insert.setDate(8, new Date(day.toEpochMilli()), utc);
      insert.setTimestamp(9, at, utc);
      assertEquals(1, insert.executeUpdate());
    }
    for (String tier : new String[] {"hot", "cold"}) {
      try (Statement statement = connection.createStatement();
          ResultSet row = statement.executeQuery("SELECT i, b, d, f, t, n, s, day, at FROM jdbc_statements.typed")) {
        assertTrue(row.next(), tier);
        assertEquals(Integer.MIN_VALUE, row.getInt("i"));
        assertEquals(Long.MAX_VALUE, row.getLong("b"));
        assertEquals(0.1, row.getDouble("d"));
        assertEquals(1.5f, row.getFloat("f"));
        assertTrue(row.getBoolean("t"));
        assertEquals(new BigDecimal("-123456.789"), row.getBigDecimal("n"));
        assertEquals("Gletscher ❄", row.getString("s"));
        assertEquals(day, Instant.ofEpochMilli(row.getDate("day", utc).getTime()));
        assertEquals(at, row.getTimestamp("at", utc));
        assertFalse(row.next());
      }
      update("STORAGE FLUSH TABLE jdbc_statements.typed");
    }
  }

  @Test
  void errorsSayWhatIsWrong() {
    assertMessage("nowhere", "SELECT * FROM nowhere.nothing");
    assertMessage("points", "SELECT * FROM jdbc_statements.pionts");
    assertMessage("SystemColumnViolation", "UPDATE jdbc_statements.points SET _id = 1");
    assertMessage("WHERE", "SELECT 1 WHERE WHERE");
  }

  private static void assertMessage(String wanted, String sql) {
    SQLException error =
        assertThrows(
            SQLException.class,
            () -> {
              try (Statement statement = connection.createStatement()) {
                statement.execute(sql);
              }
            });
    String all = "";
    for (Throwable t = error; t != null; t = t.getCause()) {
      all += t.getMessage() + "\n";
    }
    assertTrue(all.contains(wanted), all);
  }
}
