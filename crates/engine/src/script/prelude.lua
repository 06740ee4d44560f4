-- The sandbox: what a script finds besides the language. Runs once per interpreter.
-- `host` holds what the engine has made, and is given back what it needs.
local host = ...
local error, type, rawset, setmetatable, select = error, type, host.rawset, setmetatable, select
local tostring, tonumber = tostring, tonumber
local caught, alive = host.caught, host.alive
local plain_pcall, plain_xpcall, plain_loadstring = pcall, xpcall, host.loadstring
local plain_getmetatable, plain_rawget, plain_next, plain_collect = getmetatable, rawget, next, collectgarbage
local concat, find_line = table.concat, string.match
local plain_resume = coroutine.resume

local READONLY = "Attempt to modify a readonly table"
-- Each view with what is seen through it.
local guarded = {}
local views = {}
host.views = views

-- A table that holds nothing itself, through which another can be read and not changed.
local function view(content)
  local made = setmetatable({}, {
    __index = content,
    __newindex = function() error(READONLY, 2) end,
  })
  guarded[made] = content
  views[#views + 1] = made
  return made
end

-- An argument of the wrong type, in Lua's words and at the caller's place.
local function refuse(name, expected, count, found)
  local got = count == 0 and "no value" or type(found)
  error("bad argument #1 to '" .. name .. "' (" .. expected .. " expected, got " .. got .. ")", 3)
end

local G = {}
for _, name in ipairs({
  "assert", "error", "gcinfo", "ipairs", "rawequal", "select", "tonumber", "tostring", "type", "unpack", "_VERSION",
}) do
  G[name] = _G[name]
end

function G.pairs(...)
  local t = ...
  if type(t) ~= "table" then refuse("pairs", "table", select("#", ...), t) end
  return plain_next, guarded[t] or t, nil
end

function G.next(...)
  local t, key = ...
  if type(t) ~= "table" then refuse("next", "table", select("#", ...), t) end
  return plain_next(guarded[t] or t, key)
end

function G.rawget(...)
  local t, key = ...
  if type(t) ~= "table" then refuse("rawget", "table", select("#", ...), t) end
  return plain_rawget(guarded[t] or t, key)
end

function G.rawset(...)
  local t, key, value = ...
  if type(t) ~= "table" then refuse("rawset", "table", select("#", ...), t) end
  if guarded[t] then error(READONLY, 0) end
  rawset(t, key, value)
  return t
end

local real_setmetatable = setmetatable
function G.setmetatable(...)
  local t, meta = ...
  if type(t) ~= "table" then refuse("setmetatable", "table", select("#", ...), t) end
  if meta ~= nil and type(meta) ~= "table" or select("#", ...) < 2 then
    error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
  end
  if guarded[t] then error(READONLY, 0) end
  return real_setmetatable(t, meta)
end

local function unpacked(ok, failure, ...)
  if ok then return ok, failure, ... end
  -- Of a script that has to end, nothing holds the error up.
  alive()
  failure = caught(failure)
  -- The error of a command is its text to whoever catches it.
  if type(failure) == "table" and failure.err then failure = failure.err end
  return false, failure
end

function G.pcall(...)
  if select("#", ...) == 0 then return false, "bad argument #1 to 'pcall' (value expected)" end
  return unpacked(plain_pcall(...))
end

local function passed(ok, ...)
  if not ok then alive() end
  return ok, ...
end

function G.xpcall(body, handler, ...)
  if handler == nil then return plain_xpcall(body, handler) end
  -- Inside of what ends a script nothing would end its handler.
  local function handled(failure)
    alive()
    return handler(caught(failure))
  end
  return passed(plain_xpcall(body, handled))
end

-- What the collector does is not for scripts to say: the next one would inherit it.
function G.collectgarbage(what, ...)
  if what == nil or what == "collect" or what == "count" or what == "step" then return plain_collect(what, ...) end
  if what == "stop" or what == "restart" or what == "setpause" or what == "setstepmul" then return 0 end
  error("bad argument #1 to 'collectgarbage' (invalid option '" .. tostring(what) .. "')", 2)
end

-- Compiled chunks are not checked by Lua and could be anything: only source text is loaded.
function G.loadstring(...)
  local text, name = ...
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then refuse("loadstring", "string", select("#", ...), text) end
  return plain_loadstring(text, name or text)
end

function G.load(reader, name)
  local parts = {}
  while true do
    local part = reader()
    if part == nil or part == "" then break end
    if type(part) ~= "string" then return nil, "reader function must return a string" end
    parts[#parts + 1] = part
  end
  return plain_loadstring(concat(parts), name or "=(load)")
end

local function resumed(ok, failure, ...)
  if ok then return ok, failure, ... end
  alive()
  return false, caught(failure)
end
function coroutine.resume(...) return resumed(plain_resume(...)) end

-- Lua matches patterns by recursion on the C stack, as deep as the pattern is long.
local LONGEST_PATTERN = 2000
local function bounded(name, plain)
  return function(...)
    local text, pattern = ...
    if type(text) ~= "string" and type(text) ~= "number" then refuse(name, "string", select("#", ...), text) end
    if type(pattern) == "string" and #pattern > LONGEST_PATTERN and not (name == "find" and select(4, ...)) then
      error("pattern too complex", 2)
    end
    return plain(...)
  end
end
string.find, string.match = bounded("find", string.find), bounded("match", string.match)
string.gmatch, string.gsub = bounded("gmatch", string.gmatch), bounded("gsub", string.gsub)
string.gfind, string.rep = string.gmatch, host.rep

math.random, math.randomseed = host.random, host.randomseed

local redis = host.redis
for name, value in plain_next, {
  REDIS_VERSION = "7.0.15",
  REDIS_VERSION_NUM = 0x0007000f,
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
} do
  redis[name] = value
end

G.redis, G.string, G.table, G.math = view(redis), view(string), view(table), view(math)
G.coroutine, G.bit, G.struct = view(coroutine), view(host.bit), view(host.struct)
G.cjson, G.cmsgpack = view(host.cjson), view(host.cmsgpack)

-- The metatable of strings leads to the library itself.
local of_strings = plain_getmetatable("")
of_strings.__index = G.string
local of_strings_seen = view({ __index = G.string })

local environment = view(G)
local of_environment = plain_getmetatable(environment)
of_environment.__newindex = function() error(READONLY, 2) end
local nothing_else = {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
}
real_setmetatable(G, nothing_else)
local of_environment_seen = view({ __index = nothing_else.__index })

function G.getmetatable(...)
  local t = ...
  if select("#", ...) == 0 then error("bad argument #1 to 'getmetatable' (value expected)", 2) end
  if type(t) == "string" then return of_strings_seen end
  if t == environment then return of_environment_seen end
  if guarded[t] then return nil end
  return plain_getmetatable(t)
end

G._G = environment
host.environment = environment

-- What Redis calls for every error of a script: the error as a table that says where it was raised.
function G.__redis__err__handler(failure)
  if type(failure) ~= "table" then failure = { err = "ERR " .. tostring(failure) } end
  -- Lua puts the place of a caller before an error's text: the first above this one that is the script's own.
  for level = 3, 8 do
    local _, place = plain_pcall(error, "", level)
    local line = find_line(place, "^user_script:(%d+): $")
    if line then
      failure.source, failure.line = "@user_script", tonumber(line)
      break
    end
  end
  return failure
end

local describe = host.describe
local function swept(...)
  -- Only functions of Lua's own that know no metatables can have put something there.
  for number = 1, #views do
    local seen = views[number]
    for key in plain_next, seen do rawset(seen, key, nil) end
  end
  return ...
end

host.sweep = swept

-- Runs one script, with a `redis.call` of its own. Of one that fails, the engine has been told why.
function host.run(script, call, keys, arguments)
  redis.call, G.KEYS, G.ARGV = call, keys, arguments
  return swept(plain_xpcall(script, describe))
end
