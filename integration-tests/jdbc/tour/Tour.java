import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import java.util.Scanner;

/** One fixed round through Arrow's JDBC driver. integration-tests/python/tours.py runs this file and records it. */
final class Tour {
  private static final Scanner STDIN = new Scanner(System.in);

  private Tour() {}

  public static void main(String[] args) throws SQLException {
    step("connect");
    try (Connection connection = connect(null)) {
      step("create table");
      update(connection, "CREATE NAMESPACE tour");
      update(connection, "CREATE TABLE tour.points (x BIGINT NOT NULL, label TEXT)");
      parameters(connection);
      statements(connection);
      metadata(connection.getMetaData());
      failure(connection);
      transaction(connection);
      step("close");
    }
    session();
  }

  private static Connection connect(String catalog) throws SQLException {
    Properties login = new Properties();
    login.put("user", System.getenv("SERACDB_USER"));
    login.put("password", System.getenv("SERACDB_PASSWORD"));
    login.put("useEncryption", "false");
    if (catalog != null) {
      login.put("catalog", catalog);
    }
    String server = System.getenv("SERACDB_URI").replaceFirst("^grpc://", "");
    return DriverManager.getConnection("jdbc:arrow-flight-sql://" + server, login);
  }

  /** Names what comes next, and waits until it has been heard. */
  private static void step(String name) {
    System.out.println(name);
    STDIN.nextLine();
  }

  private static void equal(int got, int want) {
    if (got != want) {
      throw new AssertionError("got " + got + ", want " + want);
    }
  }

  /** Reads a result to its end and closes it. */
  private static int rows(ResultSet result) throws SQLException {
    int n = 0;
    try (result) {
      while (result.next()) {
        n++;
      }
    }
    return n;
  }

  private static int update(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return statement.executeUpdate(sql);
    }
  }

  private static int query(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return rows(statement.executeQuery(sql));
    }
  }

  private static void parameters(Connection connection) throws SQLException {
    step("insert with parameters");
    String insert = "INSERT INTO tour.points (x, label) VALUES (?, ?)";
    try (PreparedStatement statement = connection.prepareStatement(insert)) {
      for (int x = 1; x <= 3; x++) {
        statement.setLong(1, x);
        statement.setString(2, "label " + x);
        equal(statement.executeUpdate(), 1);
      }
    }
    step("query with parameters");
    String select = "SELECT x, label FROM tour.points WHERE x >= ? ORDER BY x";
    try (PreparedStatement statement = connection.prepareStatement(select)) {
      statement.setLong(1, 2);
      equal(rows(statement.executeQuery()), 2);
    }
  }

  private static void statements(Connection connection) throws SQLException {
    step("query");
    equal(query(connection, "SELECT x, label FROM tour.points ORDER BY x"), 3);
    step("update");
    equal(update(connection, "UPDATE tour.points SET label = 'z' WHERE x > 1"), 2);
    try (Statement statement = connection.createStatement()) {
      step("update by execute");
      statement.execute("UPDATE tour.points SET label = 'z' WHERE x > 1");
      equal(statement.getUpdateCount(), 2);
      step("statement used again");
      equal(rows(statement.executeQuery("SELECT x FROM tour.points")), 3);
    }
  }

  private static void metadata(DatabaseMetaData meta) throws SQLException {
    step("about the server");
    meta.getDatabaseProductName();
    meta.supportsTransactions();
    step("catalogs");
    equal(rows(meta.getCatalogs()), 1);
    step("schemas");
    equal(rows(meta.getSchemas(null, "tour")), 1);
    step("tables");
    equal(rows(meta.getTables(null, "tour", "points", null)), 1);
    equal(rows(meta.getTables(null, "tour", "%", new String[] {"TABLE", "VIEW"})), 1);
    step("columns");
    equal(rows(meta.getColumns(null, "tour", "points", "%")), 5);
    step("primary key");
    equal(rows(meta.getPrimaryKeys(null, "tour", "points")), 1);
    step("foreign keys");
    equal(rows(meta.getImportedKeys(null, "tour", "points")), 0);
    equal(rows(meta.getExportedKeys(null, "tour", "points")), 0);
    equal(rows(meta.getCrossReference(null, "tour", "points", null, "tour", "points")), 0);
    step("table types");
    rows(meta.getTableTypes());
  }

  private static void failure(Connection connection) {
    step("error");
    try {
      query(connection, "SELECT * FROM tour.pionts");
    } catch (SQLException expected) {
      return;
    }
    throw new AssertionError("a table that is not there was read");
  }

  /** By text: the driver's own commit and rollback do nothing. */
  private static void transaction(Connection connection) throws SQLException {
    step("transaction");
    update(connection, "BEGIN");
    equal(update(connection, "INSERT INTO tour.points (x) VALUES (20)"), 1);
    update(connection, "ROLLBACK");
    update(connection, "BEGIN");
    equal(update(connection, "INSERT INTO tour.points (x) VALUES (21)"), 1);
    update(connection, "COMMIT");
    equal(query(connection, "SELECT x FROM tour.points"), 4);
  }

  /** The driver has one option, and only then closes the session: twice, of which the second one fails. */
  private static void session() throws SQLException {
    step("session options");
    Connection connection = connect("seracdb");
    step("close with session options");
    try {
      connection.close();
    } catch (SQLException e) {
      if (!"Channel shutdown invoked".equals(e.getMessage())) {
        throw e;
      }
    }
  }
}
