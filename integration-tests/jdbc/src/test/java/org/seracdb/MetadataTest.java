package org.seracdb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** What DBeaver and its like ask on connect and when a table is opened. */
class MetadataTest {
  private static final String NAMESPACE = "jdbc_metadata";
  private static Connection connection;
  private static DatabaseMetaData meta;

  @BeforeAll
  static void open() throws SQLException {
    connection = Serac.connect();
    Serac.namespace(connection, NAMESPACE);
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_metadata.t_1 (price DECIMAL(12, 3), at TIMESTAMP)");
      statement.executeUpdate("CREATE TABLE jdbc_metadata.tx1 (other TEXT)");
      statement.executeUpdate("CREATE VIEW jdbc_metadata.v AS SELECT x AS number FROM jdbc_metadata.points");
      statement.executeUpdate("COMMENT ON COLUMN jdbc_metadata.points.x IS 'where it is'");
      statement.executeUpdate("COMMENT ON COLUMN jdbc_metadata.v.number IS 'the same'");
      // Of an empty result the driver reports each column twice (apache/arrow-java#44).
      statement.executeUpdate("INSERT INTO jdbc_metadata.points (x, label) VALUES (1, 'a')");
    }
    meta = connection.getMetaData();
  }

  @AfterAll
  static void close() throws SQLException {
    connection.close();
  }

  @Test
  void theProduct() throws SQLException {
    assertEquals("SeracDB", meta.getDatabaseProductName());
    assertFalse(meta.getDatabaseProductVersion().isBlank());
    assertEquals("\"", meta.getIdentifierQuoteString());
    assertFalse(meta.isReadOnly());
  }

  /** The driver's commit and rollback do nothing: to say that there are transactions would lose data. */
  @Test
  void noTransactionsAreClaimed() throws SQLException {
    assertFalse(meta.supportsTransactions());
    assertTrue(connection.getAutoCommit());
  }

  /** Every getter without arguments: each asks for a code of SqlInfo, and a wrong type of one throws. */
  @Test
  void everyFactCanBeRead() throws Exception {
    List<String> failures = new ArrayList<>();
    int asked = 0;
    for (Method method : DatabaseMetaData.class.getMethods()) {
      boolean fact = method.getReturnType().isPrimitive() || method.getReturnType() == String.class;
      if (method.getParameterCount() > 0 || !fact) {
        continue;
      }
      asked++;
      try {
        method.invoke(meta);
      } catch (InvocationTargetException e) {
        if (!(e.getCause() instanceof SQLFeatureNotSupportedException)
            && !(e.getCause() instanceof UnsupportedOperationException)) {
          failures.add(method.getName() + ": " + e.getCause());
        }
      }
    }
    assertTrue(asked > 100);
    assertTrue(failures.isEmpty(), String.join("\n", failures));
  }

  @Test
  void catalogsSchemasAndKinds() throws SQLException {
    assertEquals(List.of("seracdb"), Serac.column(meta.getCatalogs(), "TABLE_CAT"));
    assertTrue(Serac.column(meta.getSchemas(), "TABLE_SCHEM").containsAll(List.of("default", NAMESPACE)));
    assertEquals(List.of(NAMESPACE), Serac.column(meta.getSchemas("seracdb", "jdbc_meta%"), "TABLE_SCHEM"));
    assertEquals(List.of(), Serac.column(meta.getSchemas("other", "%"), "TABLE_SCHEM"));
    assertFalse(Serac.column(meta.getTableTypes(), "TABLE_TYPE").isEmpty());
  }

  @Test
  void tables() throws SQLException {
    List<Map<String, Object>> all = Serac.rows(meta.getTables(null, NAMESPACE, "%", null));
    assertEquals(List.of("points", "t_1", "tx1", "v"), all.stream().map(t -> t.get("TABLE_NAME")).toList());
    List<String> kinds = Serac.column(meta.getTableTypes(), "TABLE_TYPE");
    for (Map<String, Object> table : all) {
      assertTrue(kinds.contains(table.get("TABLE_TYPE")), table.toString());
      assertEquals("seracdb", table.get("TABLE_CAT"));
    }
    String[] views = {"VIEW"};
    assertEquals(List.of("v"), Serac.column(meta.getTables(null, NAMESPACE, "%", views), "TABLE_NAME"));
    String[] none = {"NO SUCH KIND"};
    assertEquals(List.of(), Serac.rows(meta.getTables(null, NAMESPACE, "%", none)));
    assertEquals(List.of("t_1"), Serac.column(meta.getTables(null, NAMESPACE, "t\\_1", null), "TABLE_NAME"));
    assertFalse(Serac.rows(meta.getTables(null, null, "%", null)).isEmpty());
  }

  @Test
  void columns() throws SQLException {
    List<Map<String, Object>> columns = Serac.rows(meta.getColumns(null, NAMESPACE, "points", "%"));
    List<Object> names = columns.stream().map(c -> c.get("COLUMN_NAME")).toList();
    assertEquals(List.of("_id", "x", "label", "_updated", "_deleted"), names);
    Map<String, Object> x = columns.get(1);
    assertEquals(Types.BIGINT, x.get("DATA_TYPE"));
    assertEquals(DatabaseMetaData.columnNoNulls, x.get("NULLABLE"));
    assertEquals("NO", x.get("IS_NULLABLE"));
    assertEquals("where it is", x.get("REMARKS"));
    Map<String, Object> label = columns.get(2);
    assertNull(label.get("REMARKS"));
    assertEquals(Types.VARCHAR, label.get("DATA_TYPE"));
    assertEquals(DatabaseMetaData.columnNullable, label.get("NULLABLE"));
    for (int i = 0; i < columns.size(); i++) {
      assertEquals(i + 1, columns.get(i).get("ORDINAL_POSITION"));
      assertNotNull(columns.get(i).get("TYPE_NAME"), columns.get(i).toString());
    }
    List<Map<String, Object>> number = Serac.rows(meta.getColumns(null, NAMESPACE, "v", "%"));
    assertEquals(List.of("number"), number.stream().map(c -> c.get("COLUMN_NAME")).toList());
    assertEquals("the same", number.get(0).get("REMARKS"));
    List<Map<String, Object>> price = Serac.rows(meta.getColumns("seracdb", NAMESPACE, "t\\_1", "price"));
    assertEquals(1, price.size());
    assertEquals(Types.DECIMAL, price.get(0).get("DATA_TYPE"));
    assertEquals(12, price.get(0).get("COLUMN_SIZE"));
    assertEquals(3, price.get(0).get("DECIMAL_DIGITS"));
    assertFalse(Serac.rows(meta.getColumns(null, null, "%", "%")).isEmpty());
  }

  /** Without a key DBeaver's grid is read-only. */
  @Test
  void keys() throws SQLException {
    List<Map<String, Object>> keys = Serac.rows(meta.getPrimaryKeys(null, NAMESPACE, "points"));
    assertEquals(List.of("_id"), keys.stream().map(k -> k.get("COLUMN_NAME")).toList());
    assertEquals(List.of(), Serac.rows(meta.getImportedKeys(null, NAMESPACE, "points")));
    assertEquals(List.of(), Serac.rows(meta.getExportedKeys(null, NAMESPACE, "points")));
    assertEquals(List.of(), Serac.rows(meta.getCrossReference(null, NAMESPACE, "points", null, NAMESPACE, "t_1")));
  }

  /** What this driver answers by itself, or not at all, must at least not break the connection. */
  @Test
  void theRestOfTheWalk() throws SQLException {
    List<Query> walk =
        List.of(
            () -> meta.getTypeInfo(),
            () -> meta.getIndexInfo(null, NAMESPACE, "points", false, true),
            () -> meta.getProcedures(null, NAMESPACE, "%"),
            () -> meta.getFunctions(null, NAMESPACE, "%"),
            () -> meta.getUDTs(null, NAMESPACE, "%", null),
            () -> meta.getBestRowIdentifier(null, NAMESPACE, "points", DatabaseMetaData.bestRowSession, true),
            () -> meta.getVersionColumns(null, NAMESPACE, "points"),
            () -> meta.getTablePrivileges(null, NAMESPACE, "points"),
            () -> meta.getColumnPrivileges(null, NAMESPACE, "points", "%"),
            () -> meta.getClientInfoProperties());
    for (Query query : walk) {
      try {
        Serac.rows(query.run());
      } catch (SQLFeatureNotSupportedException | UnsupportedOperationException | AbstractMethodError e) {
        // the driver has no such call
      }
    }
    assertTrue(connection.isValid(30));
    assertEquals(List.of("points"), Serac.column(meta.getTables(null, NAMESPACE, "points", null), "TABLE_NAME"));
  }

  private interface Query {
    java.sql.ResultSet run() throws SQLException;
  }

  @Test
  void resultsDescribeTheirColumns() throws SQLException {
    try (Statement statement = connection.createStatement();
        var result = statement.executeQuery("SELECT x, label, _id FROM jdbc_metadata.points")) {
      var columns = result.getMetaData();
      assertEquals(3, columns.getColumnCount());
      assertEquals("x", columns.getColumnName(1));
      // Not the column's comment, which the driver would take for its label.
      assertEquals("x", columns.getColumnLabel(1));
      assertEquals("points", columns.getTableName(1));
      assertEquals(NAMESPACE, columns.getSchemaName(1));
      assertEquals(Types.BIGINT, columns.getColumnType(1));
      assertEquals(Types.VARCHAR, columns.getColumnType(2));
      assertNotNull(columns.getColumnTypeName(2));
    }
  }
}
