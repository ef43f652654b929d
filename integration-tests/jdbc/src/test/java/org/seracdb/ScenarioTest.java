package org.seracdb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.Date;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Calendar;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TimeZone;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** The scenarios of clients/scenarios, through JDBC alone. */
class ScenarioTest {
  private static final Path FOLDER = Path.of("../../clients/scenarios");

  @TestFactory
  Stream<DynamicTest> scenarios() throws IOException {
    List<Path> files;
    try (Stream<Path> all = Files.list(FOLDER)) {
      files = all.filter(file -> file.toString().endsWith(".json")).sorted().toList();
    }
    assertTrue(!files.isEmpty(), "no scenarios in " + FOLDER);
    return files.stream().map(file -> DynamicTest.dynamicTest(name(file), () -> run(file)));
  }

  private static String name(Path file) {
    return file.getFileName().toString().replace(".json", "");
  }

  private static void run(Path file) throws Exception {
    String namespace = "jdbc_scenario_" + name(file).replace('-', '_');
    String text = Files.readString(file).replace("{ns}", namespace);
    int number = 0;
    try (Run run = new Run(namespace)) {
      for (JsonElement step : JsonParser.parseString(text).getAsJsonObject().getAsJsonArray("steps")) {
        number++;
        try {
          run.check(step.getAsJsonObject());
        } catch (SQLException | RuntimeException | AssertionError e) {
          throw new AssertionError("step " + number + ": " + step + "\n" + e, e);
        }
      }
    }
  }

  /** One run of a scenario: its connections, by name. */
  private static final class Run implements AutoCloseable {
    private final Map<String, Connection> connections = new HashMap<>();
    private Connection now;

    Run(String namespace) throws SQLException {
      now = Serac.connect();
      connections.put("first", now);
      update("CREATE NAMESPACE " + namespace);
    }

    @Override
    public void close() throws SQLException {
      for (Connection connection : connections.values()) {
        connection.close();
      }
    }

    void check(JsonObject step) throws SQLException {
      if (!step.has("fails")) {
        run(step);
        return;
      }
      try {
        run(step);
      } catch (SQLException e) {
        String all = messages(e);
        assertEquals(told(step.get("fails").getAsString()), code(all), all);
        assertTrue(all.contains(step.get("says").getAsString()), all);
        return;
      }
      throw new AssertionError("it did not fail");
    }

    private void run(JsonObject step) throws SQLException {
      if (step.has("query")) {
        query(step);
      } else if (step.has("connect")) {
        connect(step);
      } else if (step.has("as")) {
        now = connections.get(step.get("as").getAsString());
      } else if (step.has("tables")) {
        tables(step);
      } else if (step.has("schema")) {
        schema(step);
      } else {
        long count = change(step);
        if (step.has("count")) {
          assertEquals(step.get("count").getAsLong(), count);
        }
      }
    }

    /** What gives a number of rows. */
    private long change(JsonObject step) throws SQLException {
      if (step.has("ingest")) {
        return ingest(step);
      }
      for (String word : List.of("begin", "commit", "rollback")) {
        if (step.has(word)) {
          // The driver's own commit and rollback do nothing.
          return update(word.toUpperCase());
        }
      }
      String sql = step.get("execute").getAsString();
      if (step.has("batch")) {
        return batch(sql, texts(step.getAsJsonArray("types")), step.getAsJsonArray("batch"));
      }
      try (PreparedStatement statement = prepare(sql, step)) {
        return statement.executeUpdate();
      }
    }

    private long update(String sql) throws SQLException {
      try (PreparedStatement statement = now.prepareStatement(sql)) {
        return statement.executeUpdate();
      }
    }

    private PreparedStatement prepare(String sql, JsonObject step) throws SQLException {
      PreparedStatement statement = now.prepareStatement(sql);
      if (step.has("parameters")) {
        bind(statement, texts(step.getAsJsonArray("types")), step.getAsJsonArray("parameters"));
      }
      return statement;
    }

    private long batch(String sql, List<String> types, JsonArray rows) throws SQLException {
      try (PreparedStatement statement = now.prepareStatement(sql)) {
        for (JsonElement row : rows) {
          bind(statement, types, row.getAsJsonArray());
          statement.addBatch();
        }
        long count = 0;
        for (int changed : statement.executeBatch()) {
          count += changed;
        }
        return count;
      }
    }

    /** JDBC has no ingest: the table is made by SQL, the rows are one batch. */
    private long ingest(JsonObject step) throws SQLException {
      String table = step.get("ingest").getAsString();
      Map<String, String> columns = columns(step);
      List<String> declared = new ArrayList<>();
      columns.forEach((column, type) -> declared.add('"' + column + "\" " + sqlType(type)));
      String create = table + " (" + String.join(", ", declared) + ")";
      switch (step.get("mode").getAsString()) {
        case "create" -> update("CREATE TABLE " + create);
        case "create_append" -> update("CREATE TABLE IF NOT EXISTS " + create);
        case "replace" -> {
          update("DROP TABLE IF EXISTS " + table);
          update("CREATE TABLE " + create);
        }
        default -> {}
      }
      String marks = String.join(", ", columns.keySet().stream().map(column -> "?").toList());
      String names = String.join(", ", columns.keySet().stream().map(column -> '"' + column + '"').toList());
      String insert = "INSERT INTO " + table + " (" + names + ") VALUES (" + marks + ")";
      return batch(insert, List.copyOf(columns.values()), step.getAsJsonArray("rows"));
    }

    private void query(JsonObject step) throws SQLException {
      // A plain statement reports the columns of an empty result twice.
      try (PreparedStatement statement = prepare(step.get("query").getAsString(), step);
          ResultSet result = statement.executeQuery()) {
        Map<String, String> found = describe(result.getMetaData());
        List<List<String>> rows = new ArrayList<>();
        List<String> types = List.copyOf(found.values());
        while (result.next()) {
          List<String> row = new ArrayList<>();
          for (int i = 0; i < types.size(); i++) {
            row.add(read(result, i + 1, types.get(i)));
          }
          rows.add(row);
        }
        if (step.has("fails")) {
          return;
        }
        assertEquals(inOrder(columns(step)), inOrder(found));
        List<List<String>> wanted = new ArrayList<>();
        for (JsonElement row : step.getAsJsonArray("rows")) {
          wanted.add(shown(row.getAsJsonArray(), types));
        }
        assertEquals(wanted, rows);
      }
    }

    private void connect(JsonObject step) throws SQLException {
      String name = step.get("connect").getAsString();
      if (connections.containsKey(name)) {
        connections.remove(name).close();
      }
      Connection made =
          step.has("user")
              ? Serac.connect(step.get("user").getAsString(), step.get("password").getAsString(), "")
              : Serac.connect();
      connections.put(name, made);
      now = made;
      try (PreparedStatement statement = made.prepareStatement("SELECT 1")) {
        statement.executeQuery().close();
      }
    }

    private void tables(JsonObject step) throws SQLException {
      ResultSet tables = now.getMetaData().getTables(null, step.get("tables").getAsString(), "%", null);
      assertEquals(texts(step.getAsJsonArray("names")), Serac.column(tables, "TABLE_NAME"));
    }

    private void schema(JsonObject step) throws SQLException {
      String[] path = step.get("schema").getAsString().split("\\.", 2);
      String table = path[1].replace("_", "\\_");
      Map<String, String> found = new LinkedHashMap<>();
      for (Map<String, Object> column : Serac.rows(now.getMetaData().getColumns(null, path[0], table, "%"))) {
        int type = (Integer) column.get("DATA_TYPE");
        boolean decimal = type == Types.DECIMAL;
        int precision = decimal ? (Integer) column.get("COLUMN_SIZE") : 0;
        int scale = decimal ? (Integer) column.get("DECIMAL_DIGITS") : 0;
        found.put((String) column.get("COLUMN_NAME"), typeName(type, precision, scale));
      }
      assertEquals(inOrder(columns(step)), inOrder(found));
    }
  }

  private static List<String> texts(JsonArray array) {
    return array.asList().stream().map(JsonElement::getAsString).toList();
  }

  /** Names and types, in the order of the scenario. */
  private static Map<String, String> columns(JsonObject step) {
    Map<String, String> columns = new LinkedHashMap<>();
    for (JsonElement column : step.getAsJsonArray("columns")) {
      columns.put(column.getAsJsonArray().get(0).getAsString(), column.getAsJsonArray().get(1).getAsString());
    }
    return columns;
  }

  /** Maps are equal in any order. */
  private static List<Map.Entry<String, String>> inOrder(Map<String, String> columns) {
    return List.copyOf(columns.entrySet());
  }

  private static Map<String, String> describe(ResultSetMetaData meta) throws SQLException {
    Map<String, String> columns = new LinkedHashMap<>();
    for (int i = 1; i <= meta.getColumnCount(); i++) {
      String type = typeName(meta.getColumnType(i), meta.getPrecision(i), meta.getScale(i));
      columns.put(meta.getColumnLabel(i), type);
    }
    return columns;
  }

  private static String typeName(int type, int precision, int scale) {
    return switch (type) {
      case Types.BOOLEAN, Types.BIT -> "boolean";
      case Types.INTEGER -> "int";
      case Types.BIGINT -> "bigint";
      case Types.DOUBLE -> "double";
      case Types.DECIMAL -> "decimal(" + precision + "," + scale + ")";
      case Types.VARCHAR -> "text";
      case Types.VARBINARY -> "binary";
      case Types.DATE -> "date";
      case Types.TIMESTAMP -> "timestamp";
      case Types.TIMESTAMP_WITH_TIMEZONE -> "timestamptz";
      default -> "type " + type;
    };
  }

  private static String sqlType(String type) {
    return switch (type) {
      case "binary" -> "BYTEA";
      default -> type;
    };
  }

  private static Calendar utc() {
    return Calendar.getInstance(TimeZone.getTimeZone("UTC"));
  }

  private static void bind(PreparedStatement to, List<String> types, JsonArray values) throws SQLException {
    for (int i = 0; i < types.size(); i++) {
      bind(to, i + 1, types.get(i), values.get(i));
    }
  }

  private static void bind(PreparedStatement to, int at, String type, JsonElement value) throws SQLException {
    if (value instanceof JsonNull) {
      to.setNull(at, Types.NULL);
      return;
    }
    switch (type) {
      case "boolean" -> to.setBoolean(at, value.getAsBoolean());
      case "int" -> to.setInt(at, value.getAsInt());
      case "bigint" -> to.setLong(at, value.getAsLong());
      case "double" -> to.setDouble(at, value.getAsDouble());
      case "text" -> to.setString(at, value.getAsString());
      case "binary" -> to.setBytes(at, HexFormat.of().parseHex(value.getAsString()));
      case "date" -> to.setDate(at, new Date(midnight(value)), utc());
      case "timestamp", "timestamptz" -> to.setTimestamp(at, Timestamp.from(instant(value)), utc());
      default -> to.setBigDecimal(at, new BigDecimal(value.getAsString()));
    }
  }

  private static long midnight(JsonElement day) {
    return LocalDate.parse(day.getAsString()).atStartOfDay(ZoneOffset.UTC).toInstant().toEpochMilli();
  }

  private static Instant instant(JsonElement at) {
    return Instant.parse(at.getAsString().replaceFirst("Z?$", "Z"));
  }

  /** A value of a result as text. */
  private static String read(ResultSet result, int at, String type) throws SQLException {
    String value =
        switch (type) {
          case "boolean" -> String.valueOf(result.getBoolean(at));
          case "int" -> String.valueOf(result.getInt(at));
          case "bigint" -> String.valueOf(result.getLong(at));
          case "double" -> String.valueOf(result.getDouble(at));
          case "binary" -> hex(result.getBytes(at));
          case "date" -> shown(result.getDate(at, utc()), "T.*");
          case "timestamp", "timestamptz" -> shown(result.getTimestamp(at, utc()), "");
          default -> result.getString(at);
        };
    return result.wasNull() ? null : value;
  }

  private static String hex(byte[] bytes) {
    return bytes == null ? null : HexFormat.of().formatHex(bytes);
  }

  private static String shown(java.util.Date at, String cut) {
    if (at == null) {
      return null;
    }
    // java.sql.Date refuses toInstant().
    Instant instant = at instanceof Timestamp exact ? exact.toInstant() : Instant.ofEpochMilli(at.getTime());
    return DateTimeFormatter.ISO_INSTANT.format(instant).replaceFirst(cut, "");
  }

  /** The values that a row of the scenario must be read as. */
  private static List<String> shown(JsonArray row, List<String> types) {
    List<String> values = new ArrayList<>();
    for (int i = 0; i < types.size(); i++) {
      JsonElement value = row.get(i);
      values.add(
          value instanceof JsonNull
              ? null
              : switch (types.get(i)) {
                case "double" -> String.valueOf(value.getAsDouble());
                case "timestamp", "timestamptz" -> DateTimeFormatter.ISO_INSTANT.format(instant(value));
                default -> value.getAsString();
              });
    }
    return values;
  }

  private static String messages(Throwable error) {
    StringBuilder all = new StringBuilder();
    for (Throwable t = error; t != null; t = t.getCause()) {
      all.append(t).append('\n');
    }
    return all.toString();
  }

  /** The code that the driver tells: "…FlightRuntimeException: NOT_FOUND: unknown table". */
  private static String code(String messages) {
    Matcher said = Pattern.compile("FlightRuntimeException: ([A-Z_]+)").matcher(messages);
    return said.find() ? said.group(1) : "no code";
  }

  /** What the driver makes of a gRPC code: it has not all of them. */
  private static String told(String code) {
    return switch (code) {
      case "ABORTED" -> "INTERNAL";
      case "PERMISSION_DENIED" -> "UNAUTHORIZED";
      default -> code;
    };
  }
}
