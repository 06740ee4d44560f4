-- The sandbox: what a script finds besides the language. Runs once per interpreter.
-- `host` is filled in by the engine: `host.run` runs one command and is replaced for every script.
local host = ...
local error, type, pairs, rawset, setmetatable, select, tostring =
  error, type, pairs, rawset, setmetatable, select, tostring
local plain_pcall, plain_getmetatable, plain_loadstring = pcall, getmetatable, host.loadstring
local random, randomseed = host.random, host.randomseed
host.xpcall = xpcall

local READONLY = "Attempt to modify a readonly table"
local guarded = setmetatable({}, { __mode = "k" })

-- A view of a library through which it cannot be changed for the scripts that come after.
local function readonly(library)
  local view = setmetatable({}, {
    __index = library,
    __newindex = function() error(READONLY, 2) end,
    __metatable = false,
  })
  guarded[view] = true
  return view
end

local redis = {
  REDIS_VERSION = "7.0.15",
  REDIS_VERSION_NUM = 0x0007000f,
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
  sha1hex = host.sha1hex,
  log = host.log,
}

-- `call`, `pcall` and `setresp` are put here by the engine for each script.
host.redis = redis

local function single(field, text)
  if type(text) ~= "string" then
    return { err = "ERR wrong number or type of arguments" }
  end
  return { [field] = text }
end

function redis.status_reply(text) return single("ok", text) end

function redis.error_reply(text)
  if type(text) ~= "string" then return single("err", text) end
  if text:sub(1, 1) == "-" then text = text:sub(2) end
  -- An error without a code gets the general one.
  if not text:find(" ", 1, true) then text = "ERR " .. text end
  return { err = text }
end

-- Effects are what is journalled in any case; these stay for scripts that still say so.
function redis.replicate_commands() return true end
function redis.set_repl() end
function redis.breakpoint() return false end
function redis.debug() end

function math.random(low, high)
  local fraction = random()
  if low == nil then return fraction end
  if high == nil then low, high = 1, low end
  if low > high then error("bad argument #1 to 'random' (interval is empty)", 2) end
  return math.floor(fraction * (high - low + 1)) + low
end
math.randomseed = randomseed

function pcall(...)
  local function pack(ok, failure, ...)
    -- The error of a command is its text to whoever catches it.
    if not ok and type(failure) == "table" and failure.err then return false, failure.err end
    if not ok and type(failure) == "userdata" then return false, host.error_text(failure) end
    return ok, failure, ...
  end
  return pack(plain_pcall(...))
end

function rawset(target, key, value)
  if target == _G or guarded[target] then error(READONLY, 2) end
  host.rawset(target, key, value)
  return target
end

-- Compiled chunks are not checked by Lua and could be anything: only source text is loaded.
function loadstring(text, name)
  if type(text) ~= "string" then error("bad argument #1 to 'loadstring' (string expected)", 2) end
  return plain_loadstring(text, name or text)
end

function load(reader, name)
  local parts = {}
  while true do
    local part = reader()
    if part == nil or part == "" then break end
    if type(part) ~= "string" then return nil, "reader function must return a string" end
    parts[#parts + 1] = part
  end
  return plain_loadstring(table.concat(parts), name or "=(load)")
end

-- The metatable of strings leads to the library itself.
local strings = plain_getmetatable("")
strings.__metatable = false

string.dump = nil

local kept = {
  assert = assert, collectgarbage = collectgarbage, error = error, gcinfo = gcinfo, getmetatable = getmetatable,
  ipairs = ipairs, load = load, loadstring = loadstring, next = next, pairs = pairs, pcall = pcall,
  rawequal = rawequal, rawget = rawget, rawset = rawset, select = select, setmetatable = setmetatable,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall, _VERSION = _VERSION,
}
kept.redis, kept.string, kept.table, kept.math = readonly(redis), readonly(string), readonly(table), readonly(math)

local G = _G
for name in pairs(G) do host.rawset(G, name, nil) end
kept._G = G
-- KEYS and ARGV are put here by the engine for each script.
host.globals = kept
setmetatable(kept, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
-- Empty, so that assigning to what is there is noticed as well: no script takes anything away from those after it.
setmetatable(G, {
  __index = kept,
  __newindex = function() error(READONLY, 2) end,
  __metatable = false,
})
